package store

import (
	"database/sql"
	"errors"
	"fmt"
)

// applicationID marks the file as ours; it is "PKTC".
const applicationID = 0x504b5443

// migrations lead from each version of the schema to the next. Entries are
// only ever added. The version is SQLite's user_version.
var migrations = []string{
	`CREATE TABLE kv (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT`,
}

// migrate brings the file to the newest version, each step in a transaction
// of its own.
func migrate(db *sql.DB) error {
	var app, version, tables int
	if err := db.QueryRow("PRAGMA application_id").Scan(&app); err != nil {
		return wrap(err)
	}
	if err := db.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return wrap(err)
	}
	if err := db.QueryRow("SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return wrap(err)
	}
	if app != applicationID && tables > 0 {
		return fmt.Errorf("%w: it holds other tables", ErrForeign)
	}
	if version > len(migrations) {
		return fmt.Errorf("%w: its version is %d and this program knows %d; install the newer release again", ErrNewer, version, len(migrations))
	}
	for ; version < len(migrations); version++ {
		if err := step(db, version); err != nil {
			return err
		}
	}
	return nil
}

func step(db *sql.DB, version int) error {
	tx, err := db.Begin()
	if err != nil {
		return wrap(err)
	}
	for _, q := range []string{
		migrations[version],
		fmt.Sprintf("PRAGMA application_id = %d", applicationID),
		fmt.Sprintf("PRAGMA user_version = %d", version+1),
	} {
		if _, err := tx.Exec(q); err != nil {
			return errors.Join(wrap(err), tx.Rollback())
		}
	}
	return wrap(tx.Commit())
}
