//go:build unix

package image

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
)

// benchLayer is a layer as builders make them: many small files, some large,
// half of it hard to compress.
func benchLayer(b *testing.B) (gz []byte, diffID string) {
	r := rand.New(rand.NewPCG(1, 2))
	var entries []tarEntry
	for d := range 200 {
		entries = append(entries, folder(fmt.Sprintf("usr/d%d", d), 0o755))
		for i := range 25 {
			data := make([]byte, 1<<(8+r.IntN(9)))
			for j := range data {
				data[j] = byte(r.IntN(16 << (d % 2 * 4)))
			}
			entries = append(entries, file(fmt.Sprintf("usr/d%d/f%d", d, i), string(data)))
		}
	}
	plain := hostileLayer(b, append([]tarEntry{folder("usr", 0o755)}, entries...), "")
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(plain); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return out.Bytes(), sumOf(plain)
}

// BenchmarkUnpack unpacks a layer by turns with tar -x, and prints how many times
// as fast it is. What tar does not do is included: the child without rights,
// and the digest of all bytes.
func BenchmarkUnpack(b *testing.B) {
	if _, err := exec.LookPath("tar"); err != nil {
		b.Skip("needs tar")
	}
	gz, diffID := benchLayer(b)
	blob := filepath.Join(b.TempDir(), "layer.tar.gz")
	if err := os.WriteFile(blob, gz, 0o600); err != nil {
		b.Fatal(err)
	}
	s, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var ours, theirs, oursCPU, theirsCPU time.Duration
	for b.Loop() {
		f, err := os.Open(blob)
		if err != nil {
			b.Fatal(err)
		}
		dir := s.path(tmpDir, "layer")
		begin, cpu := time.Now(), cpuTime(b)
		if _, err := s.unpackOnce(b.Context(), dir, f, job{DiffID: diffID, Bounds: bounds{Bytes: 1 << 40, Files: MaxFiles}}); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(begin)
		oursCPU += cpuTime(b) - cpu
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
		if err := removeTree(dir); err != nil {
			b.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		begin, cpu = time.Now(), cpuTime(b)
		if out, err := exec.Command("tar", "-xzf", blob, "-C", dir).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		theirs += time.Since(begin)
		theirsCPU += cpuTime(b) - cpu
		if err := removeTree(dir); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "times-tar")
	b.ReportMetric(theirsCPU.Seconds()/oursCPU.Seconds(), "times-tar-cpu")
	b.ReportMetric(ours.Seconds()*1000/float64(b.N), "ms/layer")
	b.ReportMetric(oursCPU.Seconds()*1000/float64(b.N), "cpu-ms/layer")
}

// cpuTime is what this process and its ended children have used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var r syscall.Rusage
		if err := syscall.Getrusage(who, &r); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return sum
}
