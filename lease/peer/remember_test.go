package peer

import (
	"fmt"
	"testing"
)

// TestHistoryKeepsWhatHappensOnce shows that a long lease's view forgets
// statements and payments first, the oldest first, and stays bounded.
func TestHistoryKeepsWhatHappensOnce(t *testing.T) {
	var events []Event
	add := func(kind, text string) { events = remember(events, Event{Kind: kind, Text: text}) }
	add("agree", "")
	add("start", "")
	for i := range 5 * viewEvents {
		add([]string{"statement", "voucher"}[i%2], fmt.Sprint(i))
		if i == 2*viewEvents {
			add("freeze", "")
		}
	}
	if len(events) != viewEvents || events[0].Kind != "agree" || events[1].Kind != "start" || events[2].Kind != "freeze" {
		t.Fatalf("got %d events, first %q, %q, %q, want %d with agree, start and freeze", len(events), events[0].Kind, events[1].Kind, events[2].Kind, viewEvents)
	}
	for i, e := range events[3:] {
		if want := fmt.Sprint(4*viewEvents + 3 + i); e.Text != want {
			t.Fatalf("got statement or payment %s at place %d, want %s: the newest, in order", e.Text, i, want)
		}
	}
	for i := range 2 * viewEvents { // nothing routine: then the oldest goes
		add("attach", fmt.Sprint(i))
	}
	if len(events) != viewEvents || events[0].Text != fmt.Sprint(viewEvents) || events[viewEvents-1].Text != fmt.Sprint(2*viewEvents-1) {
		t.Errorf("got %d events from %s on, want the newest %d", len(events), events[0].Text, viewEvents)
	}
}
