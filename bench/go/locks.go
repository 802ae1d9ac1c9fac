package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

func benchMutex(n int) outcome {
	const tasks = 64
	var mu sync.Mutex
	var wg sync.WaitGroup
	each, count := max(1, n/tasks), 0
	for range tasks {
		wg.Go(func() {
			for i := range each {
				mu.Lock()
				count++
				mu.Unlock()
				if i%100 == 99 {
					runtime.Gosched()
				}
			}
		})
	}
	wg.Wait()
	check("mutex", count, tasks*each)
	return outcome{ops: count, result: count}
}

func benchWaiters(n int) outcome {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var came atomic.Int64
	had := 0
	mu.Lock()
	for range n {
		wg.Go(func() {
			came.Add(1)
			mu.Lock()
			had++
			mu.Unlock()
		})
	}
	for came.Load() < int64(n) {
		runtime.Gosched()
	}
	time.Sleep(10 * time.Millisecond) // the last ones get from there to their park
	start := time.Now()
	mu.Unlock()
	wg.Wait()
	took := time.Since(start)
	check("waiters", had, n)
	return outcome{ops: n, took: took}
}

func benchRWMutex(n int) outcome {
	const tasks = 64
	var mu sync.RWMutex
	var wg sync.WaitGroup
	each, written, copied := max(1, n/tasks), 0, 0
	for range tasks {
		wg.Go(func() {
			for i := 1; i <= each; i++ {
				if i%100 == 0 {
					mu.Lock()
					written++
					copied++
					mu.Unlock()
				} else {
					mu.RLock()
					if written != copied {
						fail(1, "rwmutex: a reader saw a write that was not finished")
					}
					mu.RUnlock()
				}
				if i%100 == 50 {
					runtime.Gosched()
				}
			}
		})
	}
	wg.Wait()
	check("rwmutex", written, each/100*tasks)
	return outcome{ops: tasks * each}
}

func benchCond(n int) outcome {
	var mu sync.Mutex
	moved := sync.NewCond(&mu)
	move := 0
	play := func(mine int) {
		mu.Lock()
		for ; mine < n; mine += 2 {
			for move != mine {
				moved.Wait()
			}
			move++
			moved.Signal()
		}
		mu.Unlock()
	}
	var wg sync.WaitGroup
	wg.Go(func() { play(1) })
	play(0)
	wg.Wait()
	check("cond", move, n)
	return outcome{ops: n}
}

func benchBroadcast(n int) outcome {
	const crowd = 1000
	var mu sync.Mutex
	stepped, allWait := sync.NewCond(&mu), sync.NewCond(&mu)
	steps := (n + crowd - 1) / crowd
	step, waiting := 0, 0
	var wg sync.WaitGroup
	for range crowd {
		wg.Go(func() {
			mu.Lock()
			for mine := range steps {
				if waiting++; waiting == crowd {
					allWait.Signal()
				}
				for step == mine {
					stepped.Wait()
				}
			}
			mu.Unlock()
		})
	}
	mu.Lock()
	for range steps {
		for waiting != crowd {
			allWait.Wait()
		}
		waiting = 0
		step++
		stepped.Broadcast()
	}
	mu.Unlock()
	wg.Wait()
	return outcome{ops: steps * crowd}
}
