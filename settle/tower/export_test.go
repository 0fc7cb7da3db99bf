package tower

import (
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// CheckBook states what always holds.
func (t *Tower) CheckBook() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.book.Check()
}

// RefusalBytes is how an error travels.
func RefusalBytes(err error) ([]byte, error) { return pktcloud.Marshal(refusalOf(err)) }

// ParseRefusal returns what a refusal says.
func ParseRefusal(data []byte) error {
	r, err := parse[refuse](data, MaxSmallBytes, "refusal")
	if err != nil {
		return err
	}
	return settle.Refuse(settle.Code(r.Code), "the tower: %q", r.Text)
}
