//go:build linux

package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Modules that every guest loads: its own hardware, then what containers need.
var baseModules = []string{"virtio_pci", "virtio_blk", "virtio_console", "loop", "overlay", "tun"}

// kernel is a kernel of Debian and its modules, unpacked.
type kernel struct {
	image   string
	modules map[string]string // path by name
	builtin map[string]bool
}

// findKernel looks for the newest kernel in a folder.
func findKernel(dir string) (*kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil {
		return nil, err
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("no kernel in %s: run scripts/setup cgroup2", dir)
	}
	k := &kernel{image: slices.Max(images), modules: map[string]string{}, builtin: map[string]bool{}}
	version := strings.TrimPrefix(filepath.Base(k.image), "vmlinuz-")
	tree := filepath.Join(dir, "lib", "modules", version)
	err = filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(d.Name(), ".ko") {
			k.modules[moduleName(d.Name())] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("modules of the kernel: %w", err)
	}
	built, err := os.ReadFile(filepath.Join(tree, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("modules of the kernel: %w", err)
	}
	for line := range strings.FieldsSeq(string(built)) {
		k.builtin[moduleName(filepath.Base(line))] = true
	}
	return k, nil
}

// moduleName is how the kernel calls the module of a file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(file, ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// module is one to load.
type module struct {
	name string
	data []byte
}

// load returns the named modules and those that they need, each after what it
// needs.
func (k *kernel) load(names ...string) ([]module, error) {
	var out []module
	seen := map[string]bool{}
	var visit func(name, by string) error
	visit = func(name, by string) error {
		name = moduleName(name)
		if seen[name] || k.builtin[name] {
			return nil
		}
		seen[name] = true
		path, ok := k.modules[name]
		if !ok {
			return fmt.Errorf("%s has no module %s%s", filepath.Base(k.image), name, by)
		}
		data, err := readModule(path)
		if err != nil {
			return err
		}
		needs, err := moduleNeeds(data)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, n := range needs {
			if err := visit(n, ", which "+name+" needs"); err != nil {
				return err
			}
		}
		out = append(out, module{name, data})
		return nil
	}
	for _, name := range names {
		if err := visit(name, ""); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// readModule reads a module; some kernels have them compressed.
func readModule(path string) ([]byte, error) {
	if filepath.Ext(path) != ".xz" {
		return os.ReadFile(path)
	}
	out, err := exec.Command("xz", "-dc", path).Output()
	if err != nil {
		return nil, fmt.Errorf("xz -dc %s: %w", path, err)
	}
	return out, nil
}

// moduleNeeds reads the list of a module's dependencies out of itself.
func moduleNeeds(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no kernel module")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		if needs, ok := strings.CutPrefix(field, "depends="); ok && needs != "" {
			return strings.Split(needs, ","), nil
		}
	}
	return nil, nil
}
