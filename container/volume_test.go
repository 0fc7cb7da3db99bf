package container

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// TestMountsValidate has one fault for each case.
func TestMountsValidate(t *testing.T) {
	at := func(path string) func(*Spec) { return func(s *Spec) { s.Volumes[0].Path = path } }
	for _, c := range []struct {
		name  string
		fault func(*Spec)
		ok    bool
	}{
		{"nothing", func(*Spec) {}, true},
		{"no volumes", func(s *Spec) { s.Volumes, s.Lease = nil, "" }, true},
		{"a lease without volumes", func(s *Spec) { s.Volumes = nil }, true},
		{"no lease", func(s *Spec) { s.Lease = "" }, false},
		{"a lease that climbs", func(s *Spec) { s.Lease = "../x" }, false},
		{"a lease with a colon", func(s *Spec) { s.Lease = "a:b" }, false},
		{"no name", func(s *Spec) { s.Volumes[0].Volume = "" }, false},
		{"a name that climbs", func(s *Spec) { s.Volumes[0].Volume = "a/../b" }, false},
		{"longest name", func(s *Spec) { s.Volumes[0].Volume = strings.Repeat("x", MaxVolumeName) }, true},
		{"long name", func(s *Spec) { s.Volumes[0].Volume = strings.Repeat("x", MaxVolumeName+1) }, false},
		{"relative", at("data"), false},
		{"empty", at(""), false},
		{"root", at("/"), false},
		{"trailing slash", at("/data/"), false},
		{"double slash", at("/a//b"), false},
		{"climbing", at("/a/../b"), false},
		{"dot", at("/a/./b"), false},
		{"proc", at("/proc"), false},
		{"below proc", at("/proc/sys"), false},
		{"sys", at("/sys/fs"), false},
		{"dev", at("/dev/shm"), false},
		{"like dev", at("/devices"), true},
		{"newline", at("/a\nb"), false},
		{"long", at("/" + strings.Repeat("x", MaxPathBytes)), false},
		{"below another", at("/other/deep"), false},
		{"above another", func(s *Spec) { s.Volumes[1].Path = "/data/deep" }, false},
		{"same path", at("/other"), false},
		{"beside another", at("/other2"), true},
		{"same volume", func(s *Spec) { s.Volumes[0].Volume = s.Volumes[1].Volume }, false},
		{"too many", func(s *Spec) {
			for i := range MaxMounts {
				s.Volumes = append(s.Volumes, Mount{Volume: strings.Repeat("y", i+1), Path: "/" + strings.Repeat("z", i+1)})
			}
		}, false},
	} {
		s := goodSpec()
		s.Lease, s.Volumes = "lease-1", []Mount{{Volume: "data", Path: "/data"}, {Volume: "more", Path: "/other", ReadOnly: true}}
		c.fault(&s)
		if err := s.Validate(); (err == nil) != c.ok || err != nil && !errors.Is(err, CodeInvalidSpec) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestVolumeSpecValidate(t *testing.T) {
	for _, c := range []struct {
		name string
		v    VolumeSpec
		ok   bool
	}{
		{"least", VolumeSpec{VolumeID{"l", "v"}, MinVolumeBytes}, true},
		{"most", VolumeSpec{VolumeID{"l", "v"}, MaxVolumeBytes}, true},
		{"too small", VolumeSpec{VolumeID{"l", "v"}, MinVolumeBytes - VolumeStep}, false},
		{"too large", VolumeSpec{VolumeID{"l", "v"}, MaxVolumeBytes + VolumeStep}, false},
		{"odd", VolumeSpec{VolumeID{"l", "v"}, MinVolumeBytes + 1}, false},
		{"no lease", VolumeSpec{VolumeID{"", "v"}, MinVolumeBytes}, false},
		{"no name", VolumeSpec{VolumeID{"l", ""}, MinVolumeBytes}, false},
	} {
		if err := c.v.Validate(); (err == nil) != c.ok || err != nil && !errors.Is(err, CodeInvalidSpec) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestSpecEqualVolumes(t *testing.T) {
	a := goodSpec()
	a.Lease, a.Volumes = "l", []Mount{{Volume: "v", Path: "/v"}}
	for name, change := range map[string]func(*Spec){
		"lease":     func(s *Spec) { s.Lease = "m" },
		"read-only": func(s *Spec) { s.Volumes = []Mount{{Volume: "v", Path: "/v", ReadOnly: true}} },
		"none":      func(s *Spec) { s.Volumes = nil },
	} {
		b := a
		change(&b)
		if a.Equal(b) || !a.Equal(a) {
			t.Errorf("%s: got equal specs", name)
		}
	}
}

type noContent struct{ io.ReaderAt }

func (noContent) NextData(int64) (int64, int64, error) { return 0, 0, io.EOF }

// TestEntryValidate has one fault for each case.
func TestEntryValidate(t *testing.T) {
	file := Entry{Path: "a/b", Type: EntryFile, Mode: 0o4755, UID: MaxTreeID, Size: 1, Content: noContent{}, Xattrs: []Xattr{{Name: "user.x"}}}
	for _, c := range []struct {
		name  string
		fault func(*Entry)
		ok    bool
	}{
		{"nothing", func(*Entry) {}, true},
		{"bytes as a name", func(e *Entry) { e.Path = "\xff\n" }, true},
		{"longest path", func(e *Entry) { e.Path = strings.Repeat("x/", MaxTreePath/2) + "x" }, true},
		{"long path", func(e *Entry) { e.Path = strings.Repeat("x/", MaxTreePath/2) + "xx" }, false},
		{"long name", func(e *Entry) { e.Path = strings.Repeat("x", MaxTreeName+1) }, false},
		{"no path", func(e *Entry) { e.Path = "" }, false},
		{"absolute", func(e *Entry) { e.Path = "/a" }, false},
		{"up", func(e *Entry) { e.Path = ".." }, false},
		{"up and down", func(e *Entry) { e.Path = "../a" }, false},
		{"up within", func(e *Entry) { e.Path = "a/../../b" }, false},
		{"trailing slash", func(e *Entry) { e.Path = "a/" }, false},
		{"zero byte", func(e *Entry) { e.Path = "a\x00b" }, false},
		{"a root that is a file", func(e *Entry) { e.Path = "." }, false},
		{"mode", func(e *Entry) { e.Mode = 0o10000 }, false},
		{"user", func(e *Entry) { e.UID = MaxTreeID + 1 }, false},
		{"group", func(e *Entry) { e.GID = MaxTreeID + 1 }, false},
		{"negative size", func(e *Entry) { e.Size = -1 }, false},
		{"no content", func(e *Entry) { e.Content = nil }, false},
		{"size of a directory", func(e *Entry) { e.Type = EntryDir }, false},
		{"no type", func(e *Entry) { e.Type = 0 }, false},
		{"unknown type", func(e *Entry) { e.Type = EntryLink + 1 }, false},
		{"target of a file", func(e *Entry) { e.Target = "x" }, false},
		{"symbolic link", func(e *Entry) { *e = Entry{Path: "l", Type: EntrySymlink, Target: "/etc"} }, true},
		{"link to nothing", func(e *Entry) { *e = Entry{Path: "l", Type: EntrySymlink} }, false},
		{"link to a zero byte", func(e *Entry) { *e = Entry{Path: "l", Type: EntrySymlink, Target: "\x00"} }, false},
		{"hard link", func(e *Entry) { *e = Entry{Path: "l", Type: EntryLink, Target: "a/b"} }, true},
		{"hard link up", func(e *Entry) { *e = Entry{Path: "l", Type: EntryLink, Target: "../a"} }, false},
		{"capability", func(e *Entry) { e.Xattrs = []Xattr{{Name: "security.capability"}} }, false},
		{"trusted", func(e *Entry) { e.Xattrs = []Xattr{{Name: "trusted.x"}} }, false},
		{"only a prefix", func(e *Entry) { e.Xattrs = []Xattr{{Name: "user."}} }, false},
		{"attribute twice", func(e *Entry) { e.Xattrs = []Xattr{{Name: "user.x"}, {Name: "user.x"}} }, false},
		{"access list", func(e *Entry) { e.Xattrs = []Xattr{{Name: "system.posix_acl_access"}} }, true},
		{"long value", func(e *Entry) { e.Xattrs = []Xattr{{Name: "user.x", Value: make([]byte, MaxXattrValue+1)}} }, false},
		{"many", func(e *Entry) { e.Xattrs = make([]Xattr, MaxXattrs+1) }, false},
	} {
		e := file
		c.fault(&e)
		if err := e.Validate(); (err == nil) != c.ok || err != nil && !errors.Is(err, CodeBadTree) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}
