package main

import (
	"context"
	"sync"
	"time"
)

// benchScope puts a deadline of a second around a receive that finds a value, which is put
// there before.
func benchScope(n int) outcome {
	filled := make(chan int, 1)
	for i := range n {
		filled <- i
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		select {
		case v := <-filled:
			check("scope", v, i)
		case <-ctx.Done():
			fail(1, "scope: %v", ctx.Err())
		}
		cancel()
	}
	return outcome{ops: n}
}

// group is golang.org/x/sync/errgroup.Group by WithContext, without a limit.
type group struct {
	cancel func(error)
	wg     sync.WaitGroup
	once   sync.Once
	err    error
}

// withContext is errgroup.WithContext: the context ends at the first error, or when wait returns.
func withContext(ctx context.Context) (*group, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	return &group{cancel: cancel}, ctx
}

func (g *group) spawn(f func() error) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		if err := f(); err != nil {
			g.once.Do(func() {
				g.err = err
				if g.cancel != nil {
					g.cancel(g.err)
				}
			})
		}
	}()
}

func (g *group) wait() error {
	g.wg.Wait()
	if g.cancel != nil {
		g.cancel(g.err)
	}
	return g.err
}

// benchGroup waits for ten tasks at a time; an operation is one of them.
func benchGroup(n int) outcome {
	const size = 10
	rounds := (n + size - 1) / size
	for round := range rounds {
		g, _ := withContext(context.Background()) // the tasks do not wait: none would look at it
		var numbers [size]int
		for i := range numbers {
			numbers[i] = round + i
			g.spawn(func() error {
				numbers[i] *= 2
				return nil
			})
		}
		if err := g.wait(); err != nil {
			fail(1, "group: %v", err)
		}
		sum := 0
		for _, number := range numbers {
			sum += number
		}
		check("group", sum, 2*(size*round+size*(size-1)/2))
	}
	return outcome{ops: rounds * size}
}
