package service_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

func TestUse(t *testing.T) {
	for _, c := range []struct {
		seen, cpu uint64
		want      float64
	}{{10_000, 2_500, 0.25}, {0, 0, 0}, {100, 90, 0.09}, {1_000, 2_000, 2}} {
		if got := (service.Use{Seen: c.seen, CPU: c.cpu}).Cores(); got != c.want {
			t.Errorf("got %v cores of %d ms in %d ms, want %v", got, c.cpu, c.seen, c.want)
		}
	}
	u := service.Uses{Begin: 7, Step: 10}
	for i := range uint64(25) {
		u.Points = append(u.Points, service.Use{Seen: 10, CPU: i, Throttled: 1, Memory: i, Disk: 100 - i, In: 2, Out: 3, Hits: 4})
	}
	got := u.Coarse(12)
	last := service.Use{Seen: 10, CPU: 24, Throttled: 1, Memory: 24, Disk: 76, In: 2, Out: 3, Hits: 4}
	if got.Step != 30 || got.Begin != 7 || len(got.Points) != 9 || got.Points[8] != last ||
		got.Points[0] != (service.Use{Seen: 30, CPU: 3, Throttled: 3, Memory: 2, Disk: 100, In: 6, Out: 9, Hits: 12}) {
		t.Errorf("got %+v, want three points in one", got)
	}
	if got := u.Coarse(25); len(got.Points) != 25 || got.Step != 10 {
		t.Errorf("got %d points of %d s, want them as they are", len(got.Points), got.Step)
	}
}
