package store

import "fmt"

// OnCommit tells fn of each transaction. Call it before the first change.
func OnCommit(s *Store, fn func(changes int)) { s.commits = fn }

// LimitPages makes the file as full as a full disk.
func LimitPages(s *Store, pages int) error {
	s.db.SetMaxOpenConns(1) // the limit is one of the connection
	_, err := s.db.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages))
	return err
}
