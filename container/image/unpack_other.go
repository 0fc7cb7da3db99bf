//go:build !linux

package image

import (
	"context"
	"errors"
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

func (s *Store) unpack(ctx context.Context, layer, root *os.File, j job) (usage, error) {
	return unpackLayer(ctx, layer, root.Name(), j)
}

func (s *Store) merge(context.Context, *os.File, []*os.File) (usage, error) {
	return usage{}, &container.Error{Code: container.CodeUnsupported}
}

func systemCode(error) (container.Code, bool) { return "", false }

func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}

func syncTree(string) error { return nil }

func freeBytes(string) (uint64, error) { return 0, errors.ErrUnsupported }
