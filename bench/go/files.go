package main

import (
	"encoding/binary"
	"os"
	"sync"
	"time"
)

const (
	fileBlock, fileBlocks, fileReaders = 4096, 8192, 64
)

// numbered makes a temporary file whose blocks have their number at both ends.
func numbered() *os.File {
	f, err := os.CreateTemp("", "gort-file-read-")
	if err != nil {
		fail(1, "file_read: %v", err)
	}
	os.Remove(f.Name())
	block := make([]byte, fileBlock)
	for i := range fileBlocks {
		binary.LittleEndian.PutUint64(block, uint64(i))
		binary.LittleEndian.PutUint64(block[fileBlock-8:], uint64(i))
		if _, err := f.WriteAt(block, int64(i)*fileBlock); err != nil {
			fail(1, "file_read: %v", err)
		}
	}
	return f
}

func benchFileRead(n int) outcome {
	f := numbered()
	defer f.Close()
	each := (n + fileReaders - 1) / fileReaders
	start := time.Now()
	var wg sync.WaitGroup
	for seed := range fileReaders {
		wg.Go(func() {
			block := make([]byte, fileBlock)
			x := uint64(seed+1) * 88172645463325252
			for range each {
				x ^= x << 13
				x ^= x >> 7
				x ^= x << 17
				at := x % fileBlocks
				if _, err := f.ReadAt(block, int64(at)*fileBlock); err != nil {
					fail(1, "file_read: %v", err)
				}
				check("file_read", int(binary.LittleEndian.Uint64(block)), int(at))
				check("file_read", int(binary.LittleEndian.Uint64(block[fileBlock-8:])), int(at))
			}
		})
	}
	wg.Wait()
	return outcome{ops: each * fileReaders, took: time.Since(start)}
}
