//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// TestHostileRoot starts images whose files are symbolic links where the runtime
// writes or mounts something, and shows that nothing of the machine changes.
func TestHostileRoot(t *testing.T) {
	w := newWorld(t)
	outside := filepath.Join(w.Dir, "outside")
	if err := os.Mkdir(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hosts", "passwd", "null"} {
		if err := os.WriteFile(filepath.Join(outside, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	up := strings.Repeat("../", 12) + outside[1:]
	for name, link := range map[string]struct {
		at, to string
		want   container.Code
	}{
		"hosts":           {"/etc/hosts", outside + "/hosts", ""},
		"hosts-up":        {"/etc/hosts", up + "/hosts", ""},
		"etc":             {"/etc", outside, ""},
		"etc-up":          {"/etc", up, ""},
		"proc":            {"/proc", outside, container.CodeBadImage},
		"dev-up":          {"/dev", up, container.CodeBadImage},
		"sys":             {"/sys", outside, container.CodeBadImage},
		"work-dir":        {"/app", outside, container.CodeInvalidSpec},
		"work-dir-up":     {"/app", up, container.CodeInvalidSpec},
		"work-dir-parent": {"/app", up + "/..", container.CodeInvalidSpec},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]image.File{"/bin/busybox": {Source: boxtest.Busybox, Mode: 0o755}, link.at: {Link: link.to}}
			for applet := range strings.FieldsSeq("sh ls cat sleep") {
				files["/bin/"+applet] = image.File{Link: "busybox"}
			}
			img, err := image.FromFiles(image.Build{Files: files, Args: []string{"sleep", "1000"}})
			if err == nil {
				img, err = withConfig(img, func(c *v1.Config) {
					c.Volumes = map[string]struct{}{up: {}, outside: {}, "/vol": {}}
				})
			}
			if err != nil {
				t.Fatal(err)
			}
			layout := filepath.Join(w.Dir, "layout-"+name)
			if err := image.WriteLayout(layout, img); err != nil {
				t.Fatal(err)
			}
			got, err := w.RT.Pull(t.Context(), "oci:"+layout, container.PullOptions{})
			if err != nil {
				t.Fatal(err)
			}
			s := container.Spec{ID: name, Image: got.Digest, Limits: limits, WorkDir: "/app/made/here"} // all start but for their link
			before := treeOf(t, outside)
			if err := w.RT.Start(t.Context(), s); (err == nil) != (link.want == "") || err != nil && !errors.Is(err, link.want) {
				t.Errorf("got %v, want %q", err, string(link.want))
			}
			if after := treeOf(t, outside); after != before {
				t.Errorf("the machine's directory changed: got\n%s\nwant\n%s", after, before)
			}
			if err := w.RT.Destroy(t.Context(), name); err != nil {
				t.Error(err)
			}
		})
	}
}

// withConfig changes what an image says of itself.
func withConfig(img v1.Image, change func(*v1.Config)) (v1.Image, error) {
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	change(&cfg.Config)
	return mutate.ConfigFile(img, cfg)
}

// TestHostileConfig starts images that name users and volumes of the machine:
// none is followed out of the image, and no id overflows to another.
func TestHostileConfig(t *testing.T) {
	w := newWorld(t)
	outside := filepath.Join(w.Dir, "outside")
	err := errors.Join(os.Mkdir(outside, 0o777), os.WriteFile(filepath.Join(outside, "passwd"), []byte("tenant:x:0:0::/:/bin/sh\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 12) + outside[1:]
	for name, c := range map[string]struct {
		change func(*v1.Config)
		starts bool // else it is refused
	}{
		"volume":             {func(c *v1.Config) { c.Volumes = map[string]struct{}{up: {}, outside: {}} }, true},
		"user-too-large":     {func(c *v1.Config) { c.User = "4294967296:4294967296" }, false},
		"user-negative":      {func(c *v1.Config) { c.User = "-1" }, false},
		"user-beyond":        {func(c *v1.Config) { c.User = "65536" }, false},
		"user-of-other-file": {func(c *v1.Config) { c.User = "tenant" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			img, err := image.FromFiles(image.Build{Files: map[string]image.File{
				"/bin/busybox": {Source: boxtest.Busybox, Mode: 0o755}, "/bin/sleep": {Link: "busybox"}, "/bin/ls": {Link: "busybox"},
				"/etc/passwd": {Link: up + "/passwd"},
			}, Args: []string{"sleep", "1000"}})
			if err == nil {
				img, err = withConfig(img, c.change)
			}
			layout := filepath.Join(w.Dir, "layout-"+name)
			if err == nil {
				err = image.WriteLayout(layout, img)
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := w.RT.Pull(t.Context(), "oci:"+layout, container.PullOptions{})
			if err == nil {
				err = w.RT.Start(t.Context(), container.Spec{ID: name, Image: got.Digest, Limits: limits})
			}
			switch {
			case c.starts && err != nil, !c.starts && !errors.Is(err, container.CodeInvalidSpec):
				t.Errorf("got %v, want that it starts: %v", err, c.starts)
			case err == nil:
				if out, _ := w.Exec(name, "ls", outside); strings.Contains(out, "passwd\n") && !strings.Contains(out, "No such") {
					t.Errorf("it sees the machine's directory: %s", out)
				}
			}
			if err := w.RT.Destroy(t.Context(), name); err != nil {
				t.Error(err)
			}
		})
	}
}

// treeOf lists a directory with all that a write would change.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var b bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(path)
		if err == nil {
			b.WriteString(path + " " + st.Mode().String() + " " + st.ModTime().String() + "\n")
			text, _ := os.ReadFile(path)
			b.Write(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
