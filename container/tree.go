package container

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// Limits of a [Tree] [CONTAINER-67].
const (
	MaxTreePath    = 4095 // bytes of an entry's path, and of a link's target
	MaxTreeName    = 255  // bytes of one name
	MaxXattrName   = 255
	MaxXattrValue  = 64 << 10
	MaxXattrs      = 1024 // of one entry
	MaxTreeID      = 65535
	maxTreeFile    = 1<<63 - 1 - 4096
	xattrUser      = "user."
	xattrACL       = "system.posix_acl_access"
	xattrACLNewDir = "system.posix_acl_default"
)

// Tree is a volume's files: those of a snapshot, or what a backup brings back.
type Tree interface {
	// Walk calls f for each entry: the root first, a directory before what is
	// in it, the first name of a file before its other names. The entry and
	// its Content are f's until it returns; an error of f ends the walk and is
	// returned.
	Walk(ctx context.Context, f func(*Entry) error) error
}

// EntryType is what an [Entry] is.
type EntryType uint8

// Types of entries. Devices are none of them: containers cannot make any.
const (
	EntryDir EntryType = iota + 1
	EntryFile
	EntrySymlink
	EntryFifo
	EntrySocket
	// EntryWhiteout is the character device 0:0, which anybody may make and
	// nobody can open: overlays mark removed files with it.
	EntryWhiteout
	// EntryLink is another name of an earlier entry, Target, that is no
	// directory. It has nothing of its own but Path.
	EntryLink
)

// Entry is one name of a [Tree]. Paths and names are bytes, and need not be
// UTF-8.
type Entry struct {
	Path string // relative, clean; "." is the root
	Type EntryType
	// Mode has the permissions, setuid, setgid and sticky bits, as in 07777.
	Mode uint32
	// UID and GID are those inside, at most [MaxTreeID].
	UID, GID uint32
	// Accessed and Modified are exact to the nanosecond.
	Accessed, Modified time.Time
	Size               int64  // of an EntryFile
	Target             string // of an EntrySymlink; of an EntryLink, the first name
	// Xattrs are attributes "user.…" and POSIX access control lists, by name.
	Xattrs []Xattr
	// Content is that of an EntryFile; nil when its size is 0.
	Content Content
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Content is a file's bytes. What no run of data covers reads as zeros and
// takes no space.
type Content interface {
	io.ReaderAt
	// NextData returns the first run of data at or after off, end excluded;
	// io.EOF when there is none.
	NextData(off int64) (start, end int64, err error)
}

// Validate checks the shape of an entry, which may come from a hostile place.
// Errors are [CodeBadTree].
func (e *Entry) Validate() error {
	if err := validateTreePath(e.Path); err != nil {
		return err
	}
	if e.Path == "." && e.Type != EntryDir {
		return badTree("the root is no directory")
	}
	if e.Mode&^0o7777 != 0 || e.UID > MaxTreeID || e.GID > MaxTreeID {
		return badTree("%.80q has mode %#o and owner %d:%d", e.Path, e.Mode, e.UID, e.GID)
	}
	if e.Size < 0 || e.Size > maxTreeFile || e.Type != EntryFile && (e.Size != 0 || e.Content != nil) || e.Size > 0 && e.Content == nil {
		return badTree("%.80q has size %d", e.Path, e.Size)
	}
	switch e.Type {
	case EntryDir, EntryFile, EntryFifo, EntrySocket, EntryWhiteout:
		if e.Target != "" {
			return badTree("%.80q has a target and is no link", e.Path)
		}
	case EntrySymlink:
		if e.Target == "" || len(e.Target) > MaxTreePath || strings.IndexByte(e.Target, 0) >= 0 {
			return badTree("%.80q is a symbolic link to %.80q", e.Path, e.Target)
		}
	case EntryLink:
		if err := validateTreePath(e.Target); err != nil || len(e.Xattrs) > 0 {
			return badTree("%.80q is a link to %.80q", e.Path, e.Target)
		}
	default:
		return badTree("%.80q is of type %d", e.Path, e.Type)
	}
	return e.validateXattrs()
}

func (e *Entry) validateXattrs() error {
	if len(e.Xattrs) > MaxXattrs {
		return badTree("%.80q has %d attributes", e.Path, len(e.Xattrs))
	}
	for i, x := range e.Xattrs {
		if !KeptXattr(x.Name) || len(x.Name) > MaxXattrName || strings.IndexByte(x.Name, 0) >= 0 || len(x.Value) > MaxXattrValue {
			return badTree("%.80q has an attribute %.80q", e.Path, x.Name)
		}
		if slices.ContainsFunc(e.Xattrs[:i], func(o Xattr) bool { return o.Name == x.Name }) {
			return badTree("%.80q has the attribute %.80q twice", e.Path, x.Name)
		}
	}
	return nil
}

// KeptXattr reports whether an attribute is part of a tree: those that a
// program inside can set.
func KeptXattr(name string) bool {
	return strings.HasPrefix(name, xattrUser) && len(name) > len(xattrUser) || name == xattrACL || name == xattrACLNewDir
}

func validateTreePath(p string) error {
	if len(p) > MaxTreePath || p == "" || path.IsAbs(p) || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") || strings.IndexByte(p, 0) >= 0 {
		return badTree("path %.80q is not relative and clean, of at most %d bytes", p, MaxTreePath)
	}
	for name := range strings.SplitSeq(p, "/") {
		if len(name) > MaxTreeName {
			return badTree("path %.80q has a name beyond %d bytes", p, MaxTreeName)
		}
	}
	return nil
}

func badTree(format string, args ...any) error {
	return &Error{Code: CodeBadTree, Detail: fmt.Sprintf(format, args...)}
}
