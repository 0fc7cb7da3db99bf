package service

// Metrics is what a service of a lease has used over time, by its provider's
// word.
type Metrics struct {
	Service  string     `json:"service"`
	Runs     uint64     `json:"runs" doc:"containers that it has had"`
	MilliCPU uint64     `json:"cpu" doc:"what it may use: thousandths of a core"`
	Memory   uint64     `json:"memory" doc:"what it may use: bytes"`
	Disk     uint64     `json:"disk" doc:"what it may use: bytes"`
	Hits     MetricHits `json:"hits"`
	Recent   Uses       `json:"recent" doc:"the last two hours, in steps of ten seconds"`
	Life     Uses       `json:"life" doc:"since the lease began, in steps that grow with it"`
}

// MetricHits is how often the present run of a service has hit its limits.
type MetricHits struct {
	CPU     uint64 `json:"cpu" doc:"periods of 100 ms in which it had to wait for processor time"`
	Memory  uint64 `json:"memory" doc:"times that memory had to be freed first"`
	Pids    uint64 `json:"pids" doc:"processes and threads that were refused"`
	Disk    uint64 `json:"disk" doc:"times that its disk was found full"`
	IO      uint64 `json:"io" doc:"seconds in which it read or wrote as much as it may"`
	Network uint64 `json:"network" doc:"seconds in which it sent or received as much as it may"`
	OOM     uint64 `json:"oom" doc:"processes that were killed for memory"`
}

// Uses is a use over time: points that follow one another without a break.
type Uses struct {
	Begin  int64  `json:"begin" doc:"Unix seconds: of the first point"`
	Step   uint64 `json:"step" doc:"seconds of each point"`
	Points []Use  `json:"points"`
}

// Use is what was used in one step.
type Use struct {
	Seen      uint64 `json:"seen" doc:"milliseconds of the step in which it ran and was looked at; 0: a gap, nothing is known"`
	CPU       uint64 `json:"cpu" doc:"milliseconds of processor time"`
	Throttled uint64 `json:"throttled" doc:"milliseconds that its programs together waited because the processor limit was used up"`
	Memory    uint64 `json:"memory" doc:"bytes, the most that was seen"`
	Disk      uint64 `json:"disk" doc:"bytes, the most that was seen"`
	In        uint64 `json:"in" doc:"bytes from the world outside the lease"`
	Out       uint64 `json:"out" doc:"bytes to the world outside the lease"`
	Hits      uint64 `json:"hits" doc:"of limits other than that of the processor"`
}

// Rate returns an amount as one of a second, 0 in a gap. Less than a second
// counts as one: what the first moments of a run take is no rate.
func (u Use) Rate(amount uint64) float64 {
	if u.Seen == 0 {
		return 0
	}
	return float64(amount) / float64(max(u.Seen, 1000)) * 1000
}

// Cores returns how many cores were busy, on average.
func (u Use) Cores() float64 { return u.Rate(u.CPU) / 1000 }

// Coarse returns the points in at most so many, each of several that follow one
// another: sums, and for memory and disk the most.
func (u Uses) Coarse(most int) Uses {
	each := max((len(u.Points)+most-1)/max(most, 1), 1)
	if each == 1 {
		return u
	}
	out := Uses{Begin: u.Begin, Step: u.Step * uint64(each)}
	for i, p := range u.Points {
		if i%each == 0 {
			out.Points = append(out.Points, Use{})
		}
		q := &out.Points[len(out.Points)-1]
		q.Seen += p.Seen
		q.CPU += p.CPU
		q.Throttled += p.Throttled
		q.Memory = max(q.Memory, p.Memory)
		q.Disk = max(q.Disk, p.Disk)
		q.In += p.In
		q.Out += p.Out
		q.Hits += p.Hits
	}
	return out
}
