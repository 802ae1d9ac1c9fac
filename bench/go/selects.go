package main

import (
	"reflect"
	"runtime"
	"sync"
)

// nextOf says which channel is next, in C and Go alike: the high half of a 32-bit generator
// (Numerical Recipes) times the number of channels.
func nextOf(seed *uint32, cases int) int {
	*seed = *seed*1664525 + 1013904223
	return int(uint64(*seed) * uint64(cases) >> 32)
}

func fan(capacity int) []chan int {
	c := make([]chan int, cases)
	for i := range c {
		c[i] = make(chan int, capacity)
	}
	return c
}

// take selects: item i must come from that channel.
func take(from []reflect.SelectCase, channel, i int) {
	at, v, _ := reflect.Select(from)
	if at != channel || int(v.Int()) != i {
		fail(1, "select: item %d of channel %d came for item %d of channel %d", v.Int(), at, i, channel)
	}
}

// benchSelectN: one channel has a value, which the same task has put there; nobody waits.
func benchSelectN(n int) outcome {
	c := fan(1)
	from, seed, sum := receives(c), uint32(1), 0
	for i := range n {
		to := nextOf(&seed, len(c))
		c[to] <- i
		take(from, to, i)
		sum += to
	}
	return outcome{ops: n, result: sum}
}

// benchSelectPark: a value only comes once the select waits in all its channels. The partner sends by
// a select that finds either a waiter or nobody, and gives way until there is one.
func benchSelectPark(n int) outcome {
	c := fan(0)
	var partner sync.WaitGroup
	partner.Go(func() {
		seed := uint32(1)
		for i := range n {
			to := c[nextOf(&seed, len(c))]
			for sent := false; !sent; {
				runtime.Gosched()
				select {
				case to <- i:
					sent = true
				default:
				}
			}
		}
	})
	from, seed, sum := receives(c), uint32(1), 0
	for i := range n {
		channel := nextOf(&seed, len(c))
		take(from, channel, i)
		sum += channel
	}
	partner.Wait()
	return outcome{ops: n, result: sum}
}
