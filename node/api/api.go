package api

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/danielgtaylor/huma/v2/sse"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// Base is the path under which version 1 of the API is served.
const Base = "/api/v1"

// MaxRequestBytes bounds a request's body [API-2].
const MaxRequestBytes = 1 << 20

// API serves a node's service over HTTP.
type API struct {
	svc   service.Service
	guard *Guard
	mux   *http.ServeMux
	huma  huma.API
}

// New returns the API. It answers under /api/ and checks each request with the
// guard.
func New(svc service.Service, guard *Guard, version string) *API {
	a := &API{svc: svc, guard: guard, mux: http.NewServeMux()}
	config := huma.DefaultConfig("PKT Cloud node", version)
	config.OpenAPIPath = "/api/openapi"
	config.DocsPath = ""
	config.SchemasPath = ""
	config.CreateHooks = nil
	config.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":   {Type: "http", Scheme: "bearer", Description: "the content of " + TokenFile + " in the data directory"},
		"session": {Type: "apiKey", In: "cookie", Name: "pktcloud-PORT", Description: "set by a login link"},
	}
	config.Security = []map[string][]string{{"token": {}}, {"session": {}}}
	a.huma = humago.New(a.mux, config)
	a.routes()
	a.streams()
	return a
}

// schemaName keeps the records of the market apart from the service's types.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := huma.DefaultSchemaNamer(t, hint)
	if strings.HasSuffix(t.PkgPath(), "/market") {
		return "Market" + name
	}
	return name
}

// OpenAPI returns the description, as JSON.
func (a *API) OpenAPI() ([]byte, error) { return a.huma.OpenAPI().MarshalJSON() }

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	if err := a.guard.Check(r); err != nil {
		writeProblem(w, err)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxRequestBytes)
	a.mux.ServeHTTP(w, r)
}

// Inputs are flat: the framework does not fill embedded ones.
type (
	none       struct{}
	leaseInput struct {
		Lease string `path:"lease" doc:"id, label or a unique beginning of it" maxLength:"64"`
	}
	amendInput struct {
		Lease string `path:"lease" doc:"id, label or a unique beginning of it" maxLength:"64"`
		Body  service.AmendRequest
	}
	showInput struct {
		Lease string `path:"lease" doc:"id, label or a unique beginning of it" maxLength:"64"`
		Wait  int    `query:"wait" minimum:"0" maximum:"60" doc:"answer once the service runs or never will, at the latest after so many seconds"`
	}
	offersInput struct {
		CPU     uint64 `query:"cpu" doc:"thousandths of a core"`
		Memory  uint64 `query:"memory" doc:"bytes"`
		Disk    uint64 `query:"disk" doc:"bytes"`
		MaxRate uint64 `query:"max_rate" doc:"base units per hour for these resources; 0: any"`
		Region  string `query:"region" doc:"ISO 3166 code; DE also finds DE-BE" maxLength:"6"`
		Class   string `query:"class" doc:"isolation that the offer must have, such as gvisor" maxLength:"32"`

		Egress    bool   `query:"egress" doc:"only where services may connect to the public internet"`
		Ports     uint64 `query:"ports" doc:"ports that can be published, at least"`
		Bandwidth uint64 `query:"bandwidth" doc:"bytes a second that a lease has, at least"`

		Volumes bool `query:"volumes" doc:"only where leases may have volumes"`

		Limit  int    `query:"limit" minimum:"0" maximum:"500"`
		Cursor string `query:"cursor" maxLength:"256"`
	}
	offerInput struct {
		ID     pktcloud.ID `path:"id"`
		CPU    uint64      `query:"cpu" doc:"thousandths of a core"`
		Memory uint64      `query:"memory" doc:"bytes"`
		Disk   uint64      `query:"disk" doc:"bytes"`
	}
	imageInput struct {
		Body struct {
			Ref string `json:"ref" doc:"OCI image reference" maxLength:"1024"`
		}
	}
	pruneInput struct {
		Body struct {
			Unused int64 `json:"unused,omitempty" minimum:"0" maximum:"1000000000" doc:"seconds for which an image was not used"`
		}
	}
	metricsInput struct {
		Lease   string `path:"lease" doc:"id, label or a unique beginning of it" maxLength:"64"`
		Service string `query:"service" maxLength:"32" doc:"of this service only; of all when absent"`
	}
	logInput struct {
		Lease   string    `path:"lease" doc:"id, label or a unique beginning of it" maxLength:"64"`
		Service string    `query:"service" maxLength:"32" doc:"of this service only; of all when absent, each line with its service's name"`
		Follow  bool      `query:"follow" doc:"go on with new lines"`
		Tail    int       `query:"tail" minimum:"0" maximum:"100000" doc:"the last lines only; 0: all"`
		Since   time.Time `query:"since" doc:"RFC 3339; lines from then on"`
	}
)

func resources(cpu, memory, disk uint64) service.Resources {
	return service.Resources{MilliCPU: cpu, MemoryBytes: memory, DiskBytes: disk}
}

// LoginLink is a one-time address for a browser.
type LoginLink struct {
	URL     string `json:"url"`
	Expires int64  `json:"expires" doc:"Unix seconds"`
}

func (a *API) routes() {
	get(a, "info", "/info", "The node itself", func(ctx context.Context, _ *none) (service.Info, error) { return a.svc.Info(ctx) })
	get(a, "doctor", "/doctor", "What this machine lacks", func(ctx context.Context, _ *none) (service.Report, error) { return a.svc.Doctor(ctx) })
	get(a, "list-offers", "/offers", "Offers that match, cheapest first", func(ctx context.Context, i *offersInput) (service.OfferPage, error) {
		return a.svc.Offers(ctx, service.OfferQuery{
			Resources: resources(i.CPU, i.Memory, i.Disk), MaxRate: pktcloud.Rate(i.MaxRate), Region: i.Region, Class: i.Class,
			Network: market.Network{Egress: i.Egress, Ports: i.Ports, BytesPerSecond: i.Bandwidth}, Volumes: i.Volumes, Limit: i.Limit, Cursor: i.Cursor,
		})
	})
	get(a, "show-offer", "/offers/{id}", "One offer", func(ctx context.Context, i *offerInput) (service.Offer, error) {
		return a.svc.Offer(ctx, i.ID, resources(i.CPU, i.Memory, i.Disk))
	})
	post(a, "publish-offer", "/offers", "Sign an offer and tell the peers", func(ctx context.Context, i *struct{ Body service.OfferSpec }) (service.Offer, error) {
		return a.svc.PublishOffer(ctx, i.Body)
	})
	post(a, "pull-image", "/images", "Bring an image to this provider ahead of the first lease", func(ctx context.Context, i *imageInput) (service.Image, error) {
		return a.svc.PullImage(ctx, i.Body.Ref)
	})
	get(a, "list-images", "/images", "The images of this provider, the last used first", func(ctx context.Context, _ *none) (service.ImageStore, error) {
		return a.svc.Images(ctx)
	})
	post(a, "prune-images", "/images/prune", "Remove images that no lease uses", func(ctx context.Context, i *pruneInput) (service.PrunedImages, error) {
		return a.svc.PruneImages(ctx, time.Duration(i.Body.Unused)*time.Second)
	})
	get(a, "list-leases", "/leases", "All leases, newest first", func(ctx context.Context, _ *none) ([]service.Lease, error) { return a.svc.Leases(ctx) })
	post(a, "create-lease", "/leases", "Agree a lease under an offer", func(ctx context.Context, i *struct{ Body service.LeaseRequest }) (service.Lease, error) {
		return a.svc.CreateLease(ctx, i.Body)
	})
	post(a, "convert-file", "/convert", "What a file of services means, of Compose or of the own form; its manifest is for a lease", func(_ context.Context, i *struct{ Body service.ConversionRequest }) (service.Conversion, error) {
		return service.Convert(i.Body)
	})
	get(a, "show-lease", "/leases/{lease}", "One lease", func(ctx context.Context, i *showInput) (service.Lease, error) {
		if i.Wait > 0 {
			return a.svc.AwaitLease(ctx, i.Lease, time.Duration(i.Wait)*time.Second)
		}
		return a.svc.Lease(ctx, i.Lease)
	})
	get(a, "lease-services", "/leases/{lease}/services", "How a lease's services stand, by its provider's word", func(ctx context.Context, i *leaseInput) ([]service.Standing, error) {
		return a.svc.LeaseServices(ctx, i.Lease)
	})
	get(a, "lease-metrics", "/leases/{lease}/metrics", "What a lease's services have used over time, by its provider's word", func(ctx context.Context, i *metricsInput) ([]service.Metrics, error) {
		return a.svc.LeaseMetrics(ctx, named(i.Lease, i.Service))
	})
	get(a, "lease-volumes", "/leases/{lease}/volumes", "How a lease's volumes stand, by its provider's word", func(ctx context.Context, i *leaseInput) ([]service.VolumeStanding, error) {
		return a.svc.LeaseVolumes(ctx, i.Lease)
	})
	post(a, "amend-lease", "/leases/{lease}/amend", "Change a lease that runs: its size, price, limits or term", func(ctx context.Context, i *amendInput) (service.Amendment, error) {
		return a.svc.AmendLease(ctx, i.Lease, i.Body)
	})
	post(a, "close-lease", "/leases/{lease}/close", "End a lease", func(ctx context.Context, i *leaseInput) (service.Lease, error) {
		return a.svc.CloseLease(ctx, i.Lease)
	})
	a.walletRoutes()
	get(a, "towers", "/towers", "What keeps the channels safe while this node is away", func(ctx context.Context, _ *none) (service.TowerReport, error) {
		return a.svc.Towers(ctx)
	})
	post(a, "deposit", "/towers/deposits", "Bring all towers up to date now", func(ctx context.Context, _ *none) (service.TowerReport, error) {
		return a.svc.Deposit(ctx)
	})
	post(a, "login-link", "/login-links", "A one-time address that logs a browser in", func(context.Context, *none) (LoginLink, error) {
		url, expires := a.guard.LoginLink()
		return LoginLink{URL: url, Expires: expires.Unix()}, nil
	})
	sse.Register(a.huma, huma.Operation{
		OperationID: "events", Method: http.MethodGet, Path: Base + "/events", Summary: "What happens from now on, as server-sent events",
	}, map[string]any{"happened": service.Event{}}, func(ctx context.Context, _ *none, send sse.Sender) {
		a.svc.Events(ctx, func(e service.Event) error { //nolint:errcheck // it ends when the client leaves
			return send(sse.Message{ID: int(e.Sequence), Data: e})
		})
	})
}

func get[I, O any](a *API, id, path, summary string, fn func(context.Context, *I) (O, error)) {
	operation(a, http.MethodGet, id, path, summary, fn)
}

func post[I, O any](a *API, id, path, summary string, fn func(context.Context, *I) (O, error)) {
	operation(a, http.MethodPost, id, path, summary, fn)
}

func operation[I, O any](a *API, method, id, path, summary string, fn func(context.Context, *I) (O, error)) {
	huma.Register(a.huma, huma.Operation{
		OperationID: id, Method: method, Path: Base + path, Summary: summary, DefaultStatus: http.StatusOK, MaxBodyBytes: MaxRequestBytes,
	}, func(ctx context.Context, in *I) (*struct{ Body O }, error) { return reply(fn(ctx, in)) })
}
