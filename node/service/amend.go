package service

import pktcloud "github.com/pkt-cash/pkt-cloud"

// AmendRequest changes a lease that runs. What is absent stays as it is.
type AmendRequest struct {
	Resources Resources            `json:"resources,omitzero" doc:"of the only service; a field that is 0 stays as it is"`
	Services  map[string]Resources `json:"services,omitempty" doc:"the same of several, by name"`
	Volumes   map[string]uint64    `json:"volumes,omitempty" doc:"bytes of volumes, by name, whole MiB; they grow only"`
	Term      uint64               `json:"term,omitempty" doc:"seconds of service in all, from the start of the lease"`
	Credit    *uint64              `json:"credit,omitempty" doc:"seconds of price that the provider may be owed; as many as now when absent"`
	Prepaid   *uint64              `json:"prepaid,omitempty" doc:"seconds of price that may be paid ahead; as many as now when absent"`
	Offer     *pktcloud.ID         `json:"offer,omitempty" doc:"another offer of the same provider, for its prices; those of the lease's own offer when absent"`
	MaxRate   pktcloud.Rate        `json:"max_rate,omitempty" doc:"base units per hour that are not to be exceeded afterwards; required but for a plan"`
	Plan      bool                 `json:"plan,omitempty" doc:"only say what it would cost; the provider is not asked"`
}

// Amendment is a change of a lease: what stood, and what stands, or with Plan
// would stand, instead.
type Amendment struct {
	Lease    string     `json:"lease" doc:"label"`
	Revision uint64     `json:"revision"`
	Before   LeaseTerms `json:"before"`
	After    LeaseTerms `json:"after"`
	Pending  bool       `json:"pending" doc:"the provider has not answered yet and is asked on and on; until then the lease is as before"`
}

// LeaseTerms are what an amendment may change of a lease.
type LeaseTerms struct {
	Rate      pktcloud.Rate   `json:"rate" doc:"base units per hour"`
	Resources Resources       `json:"resources" doc:"of all services, and the volumes of the disk"`
	Term      uint64          `json:"term" doc:"seconds"`
	Credit    pktcloud.Amount `json:"credit" doc:"that the provider may be owed"`
	Prepaid   pktcloud.Amount `json:"prepaid" doc:"that may be paid ahead"`
}
