//go:build linux && amd64

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

var deviceAttacks = []attack{
	{
		Name: "device/make", About: "make a device node", Without: []string{ownUsers, capMknod},
		run: func(*targets) error { return makeNode(syscall.S_IFCHR, 1, 3, nil) },
	},
	{
		Name: "device/disk", About: "read the disk of another lease through a device node of its own",
		Without: []string{ownUsers, capMknod, deviceRules, noDev},
		run: func(t *targets) error {
			if t.Disk == [2]int{} {
				return errors.New("no disk was named")
			}
			return makeNode(syscall.S_IFBLK, t.Disk[0], t.Disk[1], func(f *os.File) error {
				_, err := f.Read(make([]byte, 512))
				return err
			})
		},
	},
	{
		Name: "device/other", About: "open a device that is not one of the standard ones",
		Without: []string{ownUsers, fewDevices}, run: otherDevices,
	},
}

func makeNode(kind uint32, major, minor int, use func(*os.File) error) error {
	const name = "/node"
	_ = os.Remove(name)
	if err := syscall.Mknod(name, kind|0o600, major<<8|minor); err != nil {
		return err
	}
	defer func() { _ = os.Remove(name) }()
	if use == nil {
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return use(f)
}

// otherDevices looks through /dev.
func otherDevices(*targets) error {
	standard := []uint64{1<<8 | 3, 1<<8 | 5, 1<<8 | 7, 1<<8 | 8, 1<<8 | 9, 5 << 8, 5<<8 | 2}
	err := filepath.WalkDir("/dev", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeDevice == 0 {
			return nil // what it cannot see it cannot open
		}
		var st syscall.Stat_t
		if syscall.Lstat(path, &st) != nil || st.Rdev>>8 == 136 || slices.Contains(standard, st.Rdev) {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return nil // the next one may open
		}
		_ = f.Close()
		return errOpened
	})
	if errors.Is(err, errOpened) {
		return nil
	}
	return errors.Join(errors.New("only the standard devices open"), err)
}

var errOpened = fmt.Errorf("opened")
