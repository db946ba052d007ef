package schedule

import "time"

// Options say how schedules are served. They are the same for all.
type Options struct {
	// Workers is how many schedules are worked on at a time.
	Workers int
	// RetryStart and RetryMax bound the pause before the next try of what failed.
	RetryStart, RetryMax time.Duration
	// LookAgain is how often the kinds are looked for that are not installed; a
	// minute if 0.
	LookAgain time.Duration
}
