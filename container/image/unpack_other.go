//go:build !linux

package image

import (
	"context"
	"os"

	"github.com/pkt-cash/pkt-cloud/container"
)

func sandboxed() bool { return false }

func makeRoot(path string, _ uint32) (*os.File, error) {
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	return os.Open(path)
}

func (s *Store) unpack(ctx context.Context, layer, root *os.File, j job) (bounds, error) {
	return unpackLayer(ctx, layer, root.Name(), j)
}

func systemCode(error) (container.Code, bool) { return "", false }

func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}

func syncTree(string) error { return nil }
