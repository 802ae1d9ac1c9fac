package main

import "iter"

func count(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := 1; i <= n; i++ {
			if !yield(i) {
				return
			}
		}
	}
}

// benchGen pulls: a range over count would be inlined, and no generator with a stack of its own.
func benchGen(n int) outcome {
	next, stop := iter.Pull(count(n))
	sum := 0
	for v, ok := next(); ok; v, ok = next() {
		sum += v
	}
	stop()
	check("gen", sum, n*(n+1)/2)
	return outcome{ops: n, result: sum}
}

func benchGenNew(n int) outcome {
	for range n {
		next, stop := iter.Pull(count(1))
		v, _ := next()
		check("gen_new", v, 1)
		if _, ok := next(); ok {
			fail(1, "gen_new: a second value")
		}
		stop()
	}
	return outcome{ops: n}
}
