package store

import (
	"context"
	"fmt"
)

// OnCommit tells fn of each transaction. Call it before the first change.
func OnCommit(s *Store, fn func(changes int)) { s.writer.commits = fn }

// LimitPages makes the file as full as a full disk.
func LimitPages(s *Store, pages int) error { // the limit is one of the connection
	_, err := s.writer.conn.ExecContext(context.Background(), fmt.Sprintf("PRAGMA max_page_count = %d", pages))
	return err
}
