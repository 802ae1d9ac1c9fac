// Command go-bench is the Go side of gort's benchmarks: one program that knows every benchmark by
// name, with the same arguments and the same line of JSON as gort-bench.
//
//	go-bench NAME [--procs P] [--n N] [key=value ...]
//
// A benchmark is run once as a warm-up on less work, then three times; the best and the median of
// the three are printed. Every run checks its own result, so that no work can be left out unseen.
// Exit status: 0 done, 1 a run failed or computed the wrong thing, 2 bad arguments or unknown name.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// outcome is what one repetition did: how many operations, what it computed, and extra fields.
// took, when set, is the time of what counts, without the setting up and tearing down around it.
type outcome struct {
	ops    int
	result any
	took   time.Duration
	extra  []field
}

type field struct {
	key   string
	value any
}

type bench struct {
	n        int  // default size of the work
	procs    int  // default and only number of Ps; 0 = what --procs says
	warmFull bool // the warm-up has the full size, not a tenth of it
	once     bool // no warm-up and one repetition: a second one would measure something else
	run      func(n int) outcome
}

var benches = map[string]bench{
	"switch":      {n: 3_000_000, procs: 1, run: benchSwitch},
	"spawn":       {n: 1_000_000, run: benchSpawn},
	"spawn_join":  {n: 1_000_000, run: benchSpawnJoin},
	"chan_unbuf":  {n: 2_000_000, run: benchChanUnbuf},
	"chan_buf":    {n: 5_000_000, run: benchChanBuf},
	"chan_mpmc":   {n: 4_000_000, run: benchChanMPMC},
	"select4":     {n: 2_000_000, run: benchSelect4},
	"select_n":    {n: 1_000_000, run: benchSelectN},
	"select_park": {n: 500_000, run: benchSelectPark},
	"mutex":       {n: 6_400_000, run: benchMutex},
	"waiters":     {n: 40_000, warmFull: true, run: benchWaiters},
	"rwmutex":     {n: 6_400_000, run: benchRWMutex},
	"cond":        {n: 2_000_000, run: benchCond},
	"broadcast":   {n: 1_000_000, run: benchBroadcast},
	"scope":       {n: 2_000_000, run: benchScope},
	"group":       {n: 1_000_000, run: benchGroup},
	"skynet":      {n: 1_000_000, warmFull: true, run: benchSkynet},
	"fib":         {n: 30, warmFull: true, run: benchFib},
	"sieve":       {n: 1500, warmFull: true, run: benchSieve},
	"gen":         {n: 1_000_000, run: benchGen},
	"gen_new":     {n: 200_000, run: benchGenNew},
	"timers":      {n: 100_000, warmFull: true, run: benchTimers},
	"mem":         {n: 100_000, once: true, run: benchMem},
	"idleconn":    {n: 10_000, once: true, run: benchIdleconn},
	// Go has no other way to wait for a connection: the same.
	"idleconn_when": {n: 10_000, once: true, run: benchIdleconn},
	"preempt":       {n: 2_000, once: true, run: benchPreempt},
	"file_read":     {n: 400_000, run: benchFileRead},
	"lock_thread":   {n: 100_000, run: benchLockThread},
}

var servers = map[string]func(address string) error{
	"echo":     serveEcho,
	"http":     serveHTTP,
	"http_raw": serveHTTPRaw,
	"mixed":    serveMixed,
}

var cases = 4 // of select4, select_n and select_park
var switchTasks = 2

func fail(status int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, "go-bench: "+format+"\n", args...)
	os.Exit(status)
}

// check ends the program when a benchmark has not computed what it should have.
func check(name string, got, want int) {
	if got != want {
		fail(1, "%s: got %d, want %d", name, got, want)
	}
}

func number(key, s string) int {
	v, err := strconv.Atoi(strings.ReplaceAll(s, "_", ""))
	if err != nil || v <= 0 {
		fail(2, "%s: %q is not a positive number", key, s)
	}
	return v
}

func usage() {
	var names []string
	for name := range benches {
		names = append(names, name)
	}
	for name := range servers {
		names = append(names, name)
	}
	slices.Sort(names)
	fail(2, "usage: go-bench NAME [--procs P] [--n N] [port=N] [cases=C] [tasks=T]\nnames: %s", strings.Join(names, " "))
}

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	name := os.Args[1]
	if name == clientsName && len(os.Args) == 4 {
		idleClients(os.Args[2], os.Args[3])
		return
	}
	opt := map[string]int{}
	for args := os.Args[2:]; len(args) > 0; args = args[1:] {
		key, value, ok := strings.Cut(strings.TrimPrefix(args[0], "--"), "=")
		if !ok && strings.HasPrefix(args[0], "--") && len(args) > 1 {
			args = args[1:]
			value = args[0]
		}
		if key != "procs" && key != "n" && key != "port" && key != "cases" && key != "tasks" {
			fail(2, "unknown argument %q", key)
		}
		opt[key] = number(key, value)
	}
	if opt["tasks"] > 0 {
		switchTasks = opt["tasks"]
	}
	if opt["cases"] > 0 {
		cases = opt["cases"]
	}
	if p := opt["procs"]; p > 0 {
		runtime.GOMAXPROCS(p)
	}
	if serve, ok := servers[name]; ok {
		port := opt["port"]
		if port == 0 {
			port = 8080
		}
		fail(1, "%s: %v", name, serve(fmt.Sprintf("127.0.0.1:%d", port)))
	}
	b, ok := benches[name]
	if !ok {
		fail(2, "unknown bench %q", name)
	}
	if b.procs > 0 {
		runtime.GOMAXPROCS(b.procs)
	}
	if opt["n"] > 0 {
		b.n = opt["n"]
	}
	measure(name, b)
}

func cpuSeconds() float64 {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		fail(1, "getrusage: %v", err)
	}
	return float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1e9
}

func measure(name string, b bench) {
	type rep struct {
		outcome
		ns, cpu float64
	}
	reps := make([]rep, 3)
	switch {
	case b.once:
		reps = reps[:1]
	case b.warmFull:
		b.run(b.n)
	default:
		b.run((b.n + 9) / 10)
	}
	for i := range reps {
		cpu, start := cpuSeconds(), time.Now()
		r := rep{outcome: b.run(b.n)}
		if r.took == 0 {
			r.took = time.Since(start)
		}
		r.cpu = cpuSeconds() - cpu
		r.ns = float64(r.took)
		reps[i] = r
	}
	slices.SortFunc(reps, func(x, y rep) int { return cmp.Compare(x.took, y.took) })
	best, med := reps[0], reps[len(reps)/2]
	fields := []field{
		{"runtime", "go"}, {"bench", name}, {"procs", runtime.GOMAXPROCS(0)}, {"n", best.ops},
		{"ns_per_op", best.ns / float64(best.ops)}, {"ns_per_op_med", med.ns / float64(med.ops)},
		{"ms", best.ns / 1e6}, {"ms_med", med.ns / 1e6},
		{"cpu_s", best.cpu}, {"version", runtime.Version()},
	}
	if best.result != nil {
		fields = append(fields, field{"result", best.result})
	}
	emit(append(fields, best.extra...))
}

// emit prints one JSON object with its fields in the order given, numbers to three decimals.
func emit(fields []field) {
	parts := make([]string, len(fields))
	for i, f := range fields {
		if v, ok := f.value.(float64); ok {
			parts[i] = fmt.Sprintf("%q:%.3f", f.key, v)
			continue
		}
		v, err := json.Marshal(f.value)
		if err != nil {
			fail(1, "%s: %v", f.key, err)
		}
		parts[i] = fmt.Sprintf("%q:%s", f.key, v)
	}
	fmt.Printf("{%s}\n", strings.Join(parts, ","))
}
