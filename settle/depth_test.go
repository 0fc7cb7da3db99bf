package settle_test

import (
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

func TestDepths(t *testing.T) {
	for _, c := range []struct {
		rule     settle.Depths
		capacity pktcloud.Amount
		want     uint64
	}{
		{settle.Depths{}, pktcloud.MaxAmount, 0},
		{settle.Depths{Least: 3}, pktcloud.MaxAmount, 3},
		{settle.Depths{Step: 10}, 9, 0},
		{settle.Depths{Step: 10}, 10, 1},
		{settle.Depths{Step: 10}, 19, 1},
		{settle.Depths{Least: 2, Step: 10}, 30, 5},
		{settle.Depths{Least: 2, Step: 10}, 970, 99},
		{settle.Depths{Least: 2, Step: 10}, 980, 100},
		{settle.Depths{Least: 2, Step: 10}, 990, 100},
		{settle.Depths{Least: 99, Step: 1}, pktcloud.MaxAmount, 100},
		{settle.Depths{Least: 100, Step: 1}, pktcloud.MaxAmount, 100},
		{settle.Depths{Least: 101, Step: 1}, pktcloud.MaxAmount, 101},
	} {
		if got := c.rule.For(c.capacity); got != c.want {
			t.Errorf("%+v of %d units: got %d blocks, want %d", c.rule, uint64(c.capacity), got, c.want)
		}
	}
}
