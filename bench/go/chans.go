package main

import (
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

func benchChanUnbuf(n int) outcome {
	return play(n, func() {})
}

// The same, and the one that answers has a thread for itself.
func benchLockThread(n int) outcome {
	return play(n, runtime.LockOSThread)
}

func play(n int, begin func()) outcome {
	ping, pong := make(chan int), make(chan int)
	go func() {
		begin()
		for v := range ping {
			pong <- v + 1
		}
		close(pong)
	}()
	v, trips := 0, max(1, n/2)
	for range trips {
		ping <- v
		v = <-pong
	}
	close(ping)
	<-pong
	check("ping-pong", v, trips)
	return outcome{ops: 2 * trips, result: v}
}

func benchChanBuf(n int) outcome {
	c := make(chan int, 128)
	go func() {
		for i := range n {
			c <- i
		}
		close(c)
	}()
	sum := 0
	for v := range c {
		sum += v
	}
	check("chan_buf", sum, n*(n-1)/2)
	return outcome{ops: n, result: sum}
}

func benchChanMPMC(n int) outcome {
	const producers, consumers = 4, 4
	c := make(chan int, 128)
	each := max(1, n/producers)
	var sending, receiving sync.WaitGroup
	var sum atomic.Int64
	for range producers {
		sending.Go(func() {
			for i := range each {
				c <- i
			}
		})
	}
	for range consumers {
		receiving.Go(func() {
			own := 0
			for v := range c {
				own += v
			}
			sum.Add(int64(own))
		})
	}
	sending.Wait()
	close(c)
	receiving.Wait()
	check("chan_mpmc", int(sum.Load()), producers*each*(each-1)/2)
	return outcome{ops: producers * each, result: sum.Load()}
}

// receives are the cases of reflect.Select, which is how Go selects over a number of channels that is
// only known when it runs.
func receives(c []chan int) []reflect.SelectCase {
	cases := make([]reflect.SelectCase, len(c))
	for i := range c {
		cases[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(c[i])}
	}
	return cases
}

// selectAny receives count values.
func selectAny(c []chan int, count int) int {
	cases := receives(c)
	sum := 0
	for range count {
		_, v, _ := reflect.Select(cases)
		sum += int(v.Int())
	}
	return sum
}

func benchSelect4(n int) outcome {
	c := make([]chan int, cases)
	channels := len(c)
	each := max(1, n/channels)
	for k := range c {
		c[k] = make(chan int, 128)
		go func() {
			for i := range each {
				c[k] <- i
			}
		}()
	}
	if channels != 4 {
		sum := selectAny(c, channels*each)
		check("select4", sum, channels*each*(each-1)/2)
		return outcome{ops: channels * each, result: sum}
	}
	sum := 0
	for range channels * each {
		select {
		case v := <-c[0]:
			sum += v
		case v := <-c[1]:
			sum += v
		case v := <-c[2]:
			sum += v
		case v := <-c[3]:
			sum += v
		}
	}
	check("select4", sum, channels*each*(each-1)/2)
	return outcome{ops: channels * each, result: sum}
}

func skynet(out chan<- int, first, size int) {
	if size == 1 {
		out <- first
		return
	}
	in := make(chan int)
	part := size / 10
	for i := range 10 {
		go skynet(in, first+i*part, part)
	}
	sum := 0
	for range 10 {
		sum += <-in
	}
	out <- sum
}

// benchSkynet takes the number of leaves, rounded down to a power of ten.
func benchSkynet(n int) outcome {
	leaves := 1
	for leaves*10 <= n {
		leaves *= 10
	}
	out := make(chan int)
	go skynet(out, 0, leaves)
	sum := <-out
	check("skynet", sum, leaves*(leaves-1)/2)
	return outcome{ops: leaves, result: sum}
}

// nthPrime computes by division what the chain must find.
func nthPrime(n int) int {
	primes := make([]int, 0, n)
	for v := 2; len(primes) < n; v++ {
		isPrime := true
		for _, p := range primes {
			if p*p > v {
				break
			}
			if v%p == 0 {
				isPrime = false
				break
			}
		}
		if isPrime {
			primes = append(primes, v)
		}
	}
	return primes[n-1]
}

// benchSieve lets the source end once the last prime is known and waits for the end to run through
// the whole chain, so that no filter of this run is left parked during the next.
func benchSieve(n int) outcome {
	var enough atomic.Bool
	source := make(chan int)
	go func() {
		for v := 2; !enough.Load(); v++ {
			source <- v
		}
		close(source)
	}()
	last, in, start := 0, source, time.Now()
	for range n {
		prime := <-in
		last = prime
		from, to := in, make(chan int)
		go func() {
			for v := range from {
				if v%prime != 0 {
					to <- v
				}
			}
			close(to)
		}()
		in = to
	}
	took := time.Since(start)
	enough.Store(true)
	for range in {
	}
	check("sieve", last, nthPrime(n))
	return outcome{ops: n, result: last, took: took}
}
