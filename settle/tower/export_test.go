package tower

// CheckBook states what always holds.
func (t *Tower) CheckBook() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.book.Check()
}
