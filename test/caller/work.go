package caller

import (
	"context"
	"time"
)

// Dice decides; a *rand.Rand is one.
type Dice interface {
	IntN(n int) int
	Int64N(n int64) int64
}

// Choice is something that a worker does as often, beside others, as its weight says.
type Choice struct {
	Weight int
	Do     func()
}

// Work makes choices, each after a moment of at most think, until stop is closed or the
// context ends. What was begun is finished.
func Work(ctx context.Context, stop <-chan struct{}, dice Dice, think time.Duration, choices []Choice) {
	total := 0
	for _, c := range choices {
		total += c.Weight
	}
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(dice.Int64N(int64(think)))):
		}
		pick := dice.IntN(total)
		for _, c := range choices {
			if pick -= c.Weight; pick < 0 {
				c.Do()
				break
			}
		}
	}
}
