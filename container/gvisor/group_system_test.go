//go:build system && linux && cgo && amd64

package gvisor_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/containertest"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
	"github.com/pkt-cash/pkt-cloud/internal/netlab"
)

// member is a container of a group that says who it is to whoever connects.
func (w *world) member(id, group, name string, class container.Class) container.Spec {
	s := w.Spec(id, boxtest.Sh("exec nc -ll -p 80 -e echo I am "+id)...)
	s.Network, s.Class = container.Network{Group: group, Name: name}, class
	return s
}

// asks connects from inside until somebody answers, or not for long.
func (w *world) asks(id, host, want string) {
	w.T.Helper()
	wait := "5"
	if want == "" {
		wait = "1"
	}
	for deadline := time.Now().Add(boxtest.Patience / 2); ; time.Sleep(20 * time.Millisecond) {
		got, _ := w.Exec(id, "sh", "-c", "nc -w "+wait+" "+host+" 80 </dev/null 2>&1")
		if got == want || want == "" && !strings.Contains(got, "I am") {
			return
		}
		if want == "" || time.Now().After(deadline) {
			w.T.Fatalf("%s to %s: got %q, want %q", id, host, got, want)
		}
	}
}

// TestGroup shows who finds whom when containers with kernels of their own are
// in groups [CONTAINER-50] [CONTAINER-57].
func TestGroup(t *testing.T) {
	w := newWorld(t)
	for _, s := range []container.Spec{
		w.member("a1", "a", "web", container.ClassGVisor), w.member("a2", "a", "db", container.ClassGVisor),
		w.member("a3", "a", "plain", container.ClassUserns), w.member("b1", "b", "web", container.ClassGVisor),
		w.Spec("alone", "sleep", "1000"),
	} {
		w.Start(s)
	}
	for _, c := range []struct{ id, host, want string }{
		{"a1", "db", "I am a2\n"},
		{"a2", "web", "I am a1\n"},
		{"a1", "plain", "I am a3\n"},
		{"a3", "web", "I am a1\n"},
		{"a1", "web", "I am a1\n"},
		{"a1", "10.213.0.3", "I am a2\n"},
		{"b1", "web", "I am b1\n"},
		{"b1", "10.213.0.3", ""},
		{"b1", "db", ""},
		{"alone", "10.213.0.2", ""},
	} {
		w.asks(c.id, c.host, c.want)
	}
	if got, _ := w.Exec("a1", "ip", "addr"); !strings.Contains(got, "inet 10.213.0.2/32") || strings.Contains(got, "3: ") {
		t.Errorf("got the interfaces %s", got)
	}
	// From the machine, and to another container's address by a route of its own.
	if c, err := w.RT.Dial(t.Context(), "a2", 80); err != nil {
		t.Error(err)
	} else if b, err := io.ReadAll(c); string(b) != "I am a2\n" || c.Close() != nil {
		t.Errorf("dialled: got %q, %v", b, err)
	}
	port := freePort(t)
	s := w.member("a4", "a", "open", container.ClassGVisor)
	s.Network.Publish = []container.PublishedPort{{Port: port, Inside: 80, Protocol: container.TCP}}
	w.Start(s)
	w.answers(fmt.Sprintf("127.0.0.1:%d", port), "I am a4\n")
	if s := w.Status("a4"); !s.Network.Address.IsValid() || s.Network.BytesOut == 0 {
		t.Errorf("got %+v, want its traffic counted", s.Network)
	}
	// Bulk, in packets as large as they get.
	sum, _ := w.Exec("a1", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=16; nc -ll -p 81 -e cat /big >/dev/null 2>&1 & echo ready")
	got := ""
	for deadline := time.Now().Add(boxtest.Patience); got != fmt.Sprintln(16<<20); { // it may not listen yet
		if time.Now().After(deadline) {
			t.Fatalf("got %q bytes, want 16 MiB (%s)", got, sum)
		}
		got, _ = w.Exec("a2", "sh", "-c", "nc -w 30 web 81 </dev/null | wc -c")
	}
}

// freePort is one below those that systems hand out, so that no outgoing connection
// takes it.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 1000 {
		port := 20_000 + rand.N[uint16](12_000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// answers connects from the machine until it is answered.
func (w *world) answers(address, want string) {
	w.T.Helper()
	for deadline := time.Now().Add(boxtest.Patience); ; time.Sleep(20 * time.Millisecond) {
		var got []byte
		c, err := net.DialTimeout("tcp", address, boxtest.Patience)
		if err == nil {
			got, err = io.ReadAll(c)
			_ = c.Close()
		}
		if string(got) == want {
			return
		}
		if time.Now().After(deadline) {
			w.T.Fatalf("%s: got %q, %v, want %q", address, got, err, want)
		}
	}
}

// TestGroupSurvives kills what holds a group together. Containers of the class
// find each other through the next one [CONTAINER-56].
func TestGroupSurvives(t *testing.T) {
	w := newWorld(t)
	w.Start(w.member("one", "g", "one", container.ClassGVisor))
	w.Start(w.member("two", "g", "two", container.ClassGVisor))
	for range 2 {
		w.asks("one", "two", "I am two\n")
		w.asks("two", "one", "I am one\n")
		if err := unix.Kill(w.ProcessID("pktcloud-network"), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	w.asks("one", "two", "I am two\n")
	w.Reopen()
	w.asks("two", "one", "I am one\n")
}

// TestVolumes checks the promises of container.Volumes with containers of the
// class, and that what one writes others see at once [CONTAINER-61]
// [CONTAINER-66].
func TestVolumes(t *testing.T) {
	w := newWorld(t)
	defer w.RemoveVolumes()
	if err := containertest.TestVolumes(w.RT, w.Fixture()); err != nil {
		t.Fatal(err)
	}
	v := container.VolumeSpec{VolumeID: container.VolumeID{Lease: "lease", Name: "data"}, SizeBytes: container.MinVolumeBytes}
	if err := w.RT.CreateVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	with := func(id, path string, readOnly bool, class container.Class) container.Spec {
		s := w.Spec(id, "sleep", "1000")
		s.Lease, s.Class, s.User = "lease", class, "web"
		s.Volumes = []container.Mount{{Volume: "data", Path: path, ReadOnly: readOnly}}
		return s
	}
	w.Start(with("a", "/var/new/data", false, container.ClassGVisor))
	w.Start(with("b", "/data", false, container.ClassGVisor))
	w.Start(with("c", "/data", true, container.ClassGVisor))
	w.Start(with("d", "/data", false, container.ClassUserns))
	reads := func(want string, from ...string) {
		t.Helper()
		for _, id := range from {
			path := "/data/f"
			if id == "a" {
				path = "/var/new/data/f"
			}
			if got, _ := w.Exec(id, "cat", path); got != want {
				t.Errorf("%s reads %q, want %q", id, got, want)
			}
		}
	}
	text := ""
	for i, writer := range []string{"a", "b", "d", "b", "a"} {
		path := "/data/f"
		if writer == "a" {
			path = "/var/new/data/f"
		}
		text = fmt.Sprintf("%s writes %d\n", writer, i)
		if out, code := w.Exec(writer, "sh", "-c", fmt.Sprintf("echo '%s' > %s.new && mv %[2]s.new %[2]s", strings.TrimSpace(text), path)); code != 0 {
			t.Fatalf("%s: %s", writer, out)
		}
		reads(text, "a", "b", "c", "d")
	}
	if out, code := w.Exec("c", "sh", "-c", "echo x > /data/g"); code == 0 || !strings.Contains(out, "Read-only") {
		t.Errorf("a read-only volume: got %d, %q", code, out)
	}
	for _, id := range []string{"a", "b", "c", "d"} {
		path := "/data"
		if id == "a" {
			path = "/var/new/data"
		}
		if out, _ := w.Exec(id, "busybox", "stat", "-c", "%u:%g %a", path, path+"/f"); out != "33:44 755\n33:44 644\n" {
			t.Errorf("%s: got owners %q", id, out)
		}
	}
	snap, err := w.RT.Snapshot(t.Context(), "lease", "data")
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	tree, err := snap.Tree("data")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(tree.(container.LocalTree).Dir(), "f")); string(b) != text {
		t.Errorf("in a snapshot: got %q, %v", b, err)
	}
}

// TestVolumeHostile mounts volumes where an image has links [CONTAINER-61].
func TestVolumeHostile(t *testing.T) {
	w := newWorld(t)
	defer w.RemoveVolumes()
	v := container.VolumeSpec{VolumeID: container.VolumeID{Lease: "lease", Name: "data"}, SizeBytes: container.MinVolumeBytes}
	if err := w.RT.CreateVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, at string // at is empty where it is refused
	}{
		{"/links/within", "/www"},
		{"/links/machine/new", "/opt/srv/new"},
		{"/links/proc", ""},
		{"/links/root", ""},
		{"/links/up", ""},
		{"/links/file", ""},
	} {
		s := w.Spec("hostile", "sleep", "1000")
		s.Lease, s.Volumes = "lease", []container.Mount{{Volume: "data", Path: c.path}}
		err := w.RT.Start(t.Context(), s)
		if c.at == "" {
			if !errors.Is(err, container.CodeInvalidSpec) {
				t.Errorf("%s: got %v, want %q", c.path, err, string(container.CodeInvalidSpec))
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		if out, _ := w.Exec("hostile", "cat", "/proc/mounts"); !strings.Contains(out, " "+c.at+" ") {
			t.Errorf("%s: want it at %s, got %s", c.path, c.at, out)
		}
		if _, err := os.Stat("/opt/srv/new"); err == nil {
			t.Error("made a directory of the machine")
		}
		if err := w.RT.Destroy(t.Context(), "hostile"); err != nil {
			t.Error(err)
		}
	}
}

// TestDialDuringSnapshot holds a container as a snapshot does: who connects
// meanwhile waits, and notices nothing [CONTAINER-66].
func TestDialDuringSnapshot(t *testing.T) {
	w := newWorld(t)
	w.Start(w.Spec("held", boxtest.Sh("exec nc -ll -p 80 -e echo here")...))
	w.Await("held", func(container.Status) bool {
		c, err := w.RT.Dial(t.Context(), "held", 80)
		return err == nil && c.Close() == nil
	})
	order := filepath.Join(w.Dir, "run", "volumes", "pause.json")
	if err := errors.Join(os.WriteFile(order, nil, 0o600), w.RT.Pause(t.Context(), "held")); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		c, err := w.RT.Dial(t.Context(), "held", 80)
		if err == nil {
			err = c.Close()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Errorf("got %v while it was held", err)
		got <- err
	case <-time.After(200 * time.Millisecond):
	}
	if err := errors.Join(w.RT.Resume(t.Context(), "held"), os.Remove(order)); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if err := w.RT.Pause(t.Context(), "held"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.RT.Dial(t.Context(), "held", 80); !errors.Is(err, container.CodeNotRunning) {
		t.Errorf("a container that is paused: got %v, want %q", err, string(container.CodeNotRunning))
	}
}

// TestGroupSpoof sends as a kernel inside would that its programs have taken
// over: what has another's address does not arrive [CONTAINER-51].
func TestGroupSpoof(t *testing.T) {
	w := newWorld(t)
	w.Start(w.member("liar", "g", "liar", container.ClassGVisor))
	w.Start(w.member("ear", "g", "ear", container.ClassUserns))
	var ear net.PacketConn
	if err := inNetwork(w.GroupProcesses("ear")[0], func() (err error) {
		ear, err = net.ListenPacket("udp4", ":90")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	own, to := w.Status("liar").Network.Address, w.Status("ear").Network.Address
	for _, from := range []netip.Addr{to.Next(), to, netip.MustParseAddr("10.213.0.1"), netip.MustParseAddr("8.8.8.8"), own} {
		w.sendAs("liar", own, from, to, "from "+from.String())
	}
	_ = ear.SetReadDeadline(time.Now().Add(boxtest.Patience))
	b := make([]byte, 100)
	n, _, err := ear.ReadFrom(b)
	if got, want := string(b[:n]), "from "+own.String(); err != nil || got != want {
		t.Errorf("got %q, %v, want %q alone", got, err, want)
	}
}

// sendAs sends a datagram to port 90 on the interface of a container's kernel.
func (w *world) sendAs(id string, own, from, to netip.Addr, text string) {
	w.T.Helper()
	a := own.As4()
	router, inside := []byte{2, 1, a[0], a[1], a[2], a[3]}, []byte{2, 2, a[0], a[1], a[2], a[3]}
	ip := []byte{0x45, 0, 0, byte(28 + len(text)), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	sum = ^(sum>>16 + sum&0xffff)
	ip[10], ip[11] = byte(sum>>8), byte(sum)
	frame := slices.Concat(router, inside, []byte{8, 0}, ip, []byte{0, 90, 0, 90, 0, byte(8 + len(text)), 0, 0}, []byte(text))
	err := inNetwork(w.kernelPID(id), func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index})
	})
	if err != nil {
		w.T.Fatal(err)
	}
}

// inNetwork calls f on a thread in the network of a process.
func inNetwork(pid int, f func() error) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return netlab.In(ns, f)
}
