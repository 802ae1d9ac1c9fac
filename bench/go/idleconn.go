package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// clientsName is the hidden argument of the child process that plays the clients of idleconn.
const clientsName = "idleconn-clients"

// idleClients connects count times and waits for a byte on standard input; then it sends a byte on
// each connection and must get it back.
func idleClients(address, count string) {
	n, err := strconv.Atoi(count)
	if err != nil {
		fail(2, "idleconn: %v", err)
	}
	conns := make([]net.Conn, n)
	for i := range conns {
		if conns[i], err = net.Dial("tcp", address); err != nil {
			fail(1, "idleconn: the clients: %v", err)
		}
	}
	var b [1]byte
	if _, err := io.ReadFull(os.Stdin, b[:]); err != nil {
		fail(1, "idleconn: the clients: %v", err)
	}
	for i, c := range conns {
		if _, err := c.Write([]byte{byte(i)}); err != nil {
			fail(1, "idleconn: the clients: %v", err)
		}
		if _, err := io.ReadFull(c, b[:]); err != nil || b[0] != byte(i) {
			fail(1, "idleconn: the clients: got %v, %v", b[0], err)
		}
	}
}

// holdIdle is what count idle connections add to the memory of this process, and to the kernel's
// slabs, where both ends are counted.
func holdIdle(count int) (user, kernel int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(1, "idleconn: %v", err)
	}
	child := exec.Command("/proc/self/exe", clientsName, l.Addr().String(), fmt.Sprint(count))
	child.Stderr = os.Stderr
	start, err := child.StdinPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		fail(1, "idleconn: %v", err)
	}
	debug.FreeOSMemory()
	user, kernel = residentBytes(), procBytes("/proc/meminfo", "Slab:")
	var served sync.WaitGroup
	for range count {
		c, err := l.Accept()
		if err != nil {
			fail(1, "idleconn: %v", err)
		}
		served.Go(func() {
			defer c.Close()
			echo(c)
		})
	}
	time.Sleep(50 * time.Millisecond) // the last ones get to their park
	user, kernel = residentBytes()-user, procBytes("/proc/meminfo", "Slab:")-kernel
	if _, err := start.Write([]byte("g")); err != nil {
		fail(1, "idleconn: %v", err)
	}
	if err := child.Wait(); err != nil {
		fail(1, "idleconn: not every client got its answer: %v", err)
	}
	served.Wait()
	l.Close()
	return user, kernel
}

func benchIdleconn(n int) outcome {
	holdIdle(100)
	start := time.Now()
	user, kernel := holdIdle(n)
	return outcome{ops: n, took: time.Since(start), extra: []field{
		{"bytes_per_conn", float64(user) / float64(n)},
		{"kernel_bytes_per_conn", float64(kernel) / float64(n)},
	}}
}
