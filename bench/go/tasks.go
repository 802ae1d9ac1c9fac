package main

import (
	"bufio"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func benchSwitch(n int) outcome {
	if switchTasks != 2 {
		return switchCrowd(n, switchTasks)
	}
	each := max(1, n/2)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range each {
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
	return outcome{ops: 2 * each}
}

// switchCrowd: they start before the time runs, and then wait for each other.
func switchCrowd(n, tasks int) outcome {
	each := (n + tasks - 1) / tasks
	var there, start, done sync.WaitGroup
	there.Add(tasks)
	start.Add(1)
	done.Add(tasks)
	task := func() {
		there.Done()
		start.Wait()
		for range each {
			runtime.Gosched()
		}
		done.Done()
	}
	for range tasks {
		go task()
	}
	there.Wait()
	begin := time.Now()
	start.Done()
	done.Wait()
	return outcome{ops: each * tasks, took: time.Since(begin)}
}

// The closure that is spawned is made once: `go f()` of a function value allocates nothing.
func benchSpawn(n int) outcome {
	const batch = 1000
	var wg sync.WaitGroup
	task := func() { wg.Done() }
	batches := max(1, n/batch)
	for range batches {
		wg.Add(batch)
		for range batch {
			go task()
		}
		wg.Wait()
	}
	return outcome{ops: batches * batch}
}

func benchSpawnJoin(n int) outcome {
	var wg sync.WaitGroup
	task := func() { wg.Done() }
	for range n {
		wg.Add(1)
		go task()
		wg.Wait()
	}
	return outcome{ops: n}
}

// call is one inner call of fib: what its two children write, in one allocation.
type call struct {
	children    sync.WaitGroup
	left, right int
}

// fib spawns both children and joins them. Of the ways tried (a channel with room for two, an
// unbuffered one) the WaitGroup was the fastest.
func fib(n int, result *int, done *sync.WaitGroup) {
	if n <= 2 {
		*result = 1
	} else {
		var c call
		c.children.Add(2)
		go fib(n-1, &c.left, &c.children)
		go fib(n-2, &c.right, &c.children)
		c.children.Wait()
		*result = c.left + c.right
	}
	done.Done()
}

// benchFib takes n as the index: fib(30) by default. An operation is one of the 2*fib(n)-1 tasks.
func benchFib(n int) outcome {
	a, b := 0, 1
	for range n {
		a, b = b, a+b
	}
	var root sync.WaitGroup
	var got int
	root.Add(1)
	go fib(n, &got, &root)
	root.Wait()
	check("fib", got, a)
	return outcome{ops: 2*a - 1, result: got}
}

// lateness sorts the samples and gives the percentiles that the two timing benchmarks print.
func lateness(prefix string, late []time.Duration) []field {
	slices.Sort(late)
	us := func(i int) float64 { return float64(late[i]) / 1e3 }
	n := len(late)
	return []field{
		{prefix + "p50_us", us(n / 2)}, {prefix + "p99_us", us(n * 99 / 100)}, {prefix + "max_us", us(n - 1)},
	}
}

func benchTimers(n int) outcome {
	const sleeps = 5
	late := make([]time.Duration, n*sleeps)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			mine := late[i*sleeps : (i+1)*sleeps]
			for k := range mine {
				d := time.Millisecond + rand.N(49*time.Millisecond)
				start := time.Now()
				time.Sleep(d)
				mine[k] = time.Since(start) - d
			}
		})
	}
	wg.Wait()
	extra := lateness("late_", late)
	if late[0] < 0 {
		fail(1, "timers: a sleep ended %v early", -late[0])
	}
	return outcome{ops: len(late), extra: extra}
}

func procBytes(path, key string) int {
	f, err := os.Open(path)
	if err != nil {
		fail(1, "mem: %v", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) >= 2 && w[0] == key {
			kib, _ := strconv.Atoi(w[1])
			return kib * 1024
		}
	}
	fail(1, "mem: no %s in %s", key, path)
	return 0
}

// residentBytes is what the kernel holds for us: pages in memory, counted exactly (VmRSS lags), and
// the page tables for them.
func residentBytes() int {
	return procBytes("/proc/self/smaps_rollup", "Rss:") + procBytes("/proc/self/status", "VmPTE:")
}

// benchMem is run once, in a fresh process: a second run would find the first one's stacks.
func benchMem(n int) outcome {
	debug.FreeOSMemory()
	before, start := residentBytes(), time.Now()
	release := make(chan struct{})
	var started, ended sync.WaitGroup
	started.Add(n)
	ended.Add(n)
	task := func() {
		started.Done()
		<-release
		ended.Done()
	}
	for range n {
		go task()
	}
	started.Wait()
	spawned := time.Since(start)
	time.Sleep(20 * time.Millisecond) // the last ones get from Done to their park
	perTask := float64(residentBytes()-before) / float64(n)
	close(release)
	ended.Wait()
	return outcome{ops: n, took: spawned, extra: []field{{"bytes_per_task", perTask}}}
}

// benchPreempt: one hog on each P for ms, and a sleeper that wants to be on time.
func benchPreempt(ms int) outcome {
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !stop.Load() {
			}
		})
	}
	var late []time.Duration
	for begin := time.Now(); time.Since(begin) < time.Duration(ms)*time.Millisecond; {
		start := time.Now()
		time.Sleep(time.Millisecond)
		late = append(late, time.Since(start)-time.Millisecond)
	}
	stop.Store(true)
	wg.Wait()
	extra := lateness("", late)
	return outcome{ops: len(late), extra: extra}
}
