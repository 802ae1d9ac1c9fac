package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// listen runs one goroutine for each connection, until the process is killed.
func listen(address string, serve func(net.Conn)) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

func serveEcho(address string) error {
	return listen(address, echo)
}

func echo(c net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// serveHTTP is net/http as one would run it: a limit on slow headers, as gort's examples/http has.
func serveHTTP(address string) error {
	s := http.Server{
		Addr:              address,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       60 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, "Hello, World!")
		}),
	}
	return s.ListenAndServe()
}

const (
	hello      = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"
	badRequest = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)

var (
	errBad        = errors.New("bad request")
	errIncomplete = errors.New("incomplete request")
)

type request struct {
	head, body  int
	burn, close bool
}

// parse reads the head of one request, as much of it as one must know to find the next.
func (r *request) parse(in []byte) error {
	*r = request{}
	for at := 0; ; {
		size := bytes.IndexByte(in[at:], '\n')
		if size < 0 {
			return errIncomplete
		}
		if size == 0 || in[at+size-1] != '\r' {
			return errBad
		}
		line := in[at : at+size-1]
		var ok bool
		switch {
		case at == 0:
			ok = r.requestLine(line)
		case len(line) == 0:
			r.head = at + size + 1
			return nil
		default:
			ok = r.header(line)
		}
		if !ok {
			return errBad
		}
		at += size + 1
	}
}

func (r *request) requestLine(line []byte) bool {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, version, ok := bytes.Cut(rest, []byte(" "))
	if !ok || len(target) == 0 || target[0] != '/' {
		return false
	}
	if m := string(method); m != "GET" && m != "POST" {
		return false
	}
	v := string(version)
	r.close = v == "HTTP/1.0"
	r.burn = string(target) == "/burn"
	return r.close || v == "HTTP/1.1"
}

func (r *request) header(line []byte) bool {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 {
		return false
	}
	switch len(name) {
	case len("Connection"):
		if bytes.EqualFold(name, []byte("Connection")) {
			value = bytes.TrimSpace(value)
			if bytes.EqualFold(value, []byte("close")) {
				r.close = true
			} else if bytes.EqualFold(value, []byte("keep-alive")) {
				r.close = false
			}
		}
	case len("Content-Length"):
		if bytes.EqualFold(name, []byte("Content-Length")) {
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			r.body = n
			return err == nil && n >= 0
		}
	case len("Transfer-Encoding"):
		return !bytes.EqualFold(name, []byte("Transfer-Encoding"))
	}
	return true
}

// httpRaw answers all the requests that came in one read with one write.
func httpRaw(c net.Conn, burn func()) {
	in, out := make([]byte, 4096), make([]byte, 0, 1024)
	have, skip := 0, 0
	for {
		n, err := c.Read(in[have:])
		if err != nil {
			return
		}
		have += n
		rest, closing := in[:have], false
		for !closing {
			body := min(skip, len(rest))
			skip -= body
			rest = rest[body:]
			if len(rest) == 0 {
				break
			}
			var r request
			err := r.parse(rest)
			if err == errIncomplete && len(rest) < len(in) {
				break
			}
			if err != nil {
				out = append(out, badRequest...)
				closing = true
				break
			}
			if r.burn && burn != nil {
				burn()
			}
			out = append(out, hello...)
			rest = rest[r.head:]
			skip, closing = r.body, r.close
		}
		have = copy(in, rest)
		if len(out) > 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		if closing {
			return
		}
	}
}

func serveHTTPRaw(address string) error {
	return listen(address, func(c net.Conn) { httpRaw(c, nil) })
}

// spin is work that never calls the runtime.
func spin(rounds int) (x uint64) {
	x = 88172645463325252
	for range rounds {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

var spun uint64 // keeps the compiler from dropping the work

// roundsPer5ms finds how much work fills 5 ms of an undisturbed core: the fastest of several tries.
// A burn is then an amount of work, not a time on the wall, so that being preempted does not shorten it.
func roundsPer5ms() int {
	const sample = 1_000_000
	best := time.Duration(1 << 62)
	for range 20 {
		start := time.Now()
		spun += spin(sample)
		best = min(best, time.Since(start))
	}
	return int(5 * time.Millisecond * sample / best)
}

func serveMixed(address string) error {
	rounds := roundsPer5ms()
	return listen(address, func(c net.Conn) {
		httpRaw(c, func() {
			if spin(rounds) == 0 {
				panic("xorshift never reaches zero")
			}
		})
	})
}
