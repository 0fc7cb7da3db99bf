package devnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// maxBlockBytes bounds one record of a block file.
const maxBlockBytes = 4_000_000

// rawBlocks reads the flat files of dir: every block ever written, in that
// order, side branches included. A file is a row of records
//
//	4 bytes  magic, little endian
//	4 bytes  length n, little endian
//	n bytes  the block
//	4 bytes  CRC-32C of all before, big endian
//
// [LEDGER-24]. A last record that was cut short by a crash is left out.
func rawBlocks(dir string) ([][]byte, error) {
	var blocks [][]byte
	for n := 0; ; n++ {
		data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%09d.fdb", n)))
		if errors.Is(err, os.ErrNotExist) {
			return blocks, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read block file: %w", err)
		}
		for len(data) > 0 {
			block, rest, ok := cutBlock(data)
			if !ok {
				break
			}
			blocks, data = append(blocks, block), rest
		}
	}
}

func cutBlock(data []byte) (block, rest []byte, ok bool) {
	const head, tail = 8, 4
	if len(data) < head+tail || binary.LittleEndian.Uint32(data) != Magic {
		return nil, nil, false
	}
	n := binary.LittleEndian.Uint32(data[4:])
	if n > maxBlockBytes || uint64(n)+head+tail > uint64(len(data)) {
		return nil, nil, false
	}
	end := head + int(n)
	sum := crc32.Checksum(data[:end], crc32.MakeTable(crc32.Castagnoli))
	if binary.BigEndian.Uint32(data[end:]) != sum {
		return nil, nil, false
	}
	return data[head:end], data[end+tail:], true
}
