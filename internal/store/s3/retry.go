package s3

import (
	"context"
	"math/rand/v2"
	"time"
)

const maxBackoff = 5 * time.Second

// retry repeats a request until it succeeds, fails for good, or has failed for too long.
// It returns the last error of the request, or that of the context.
func (s *Store) retry(ctx context.Context, request func(context.Context) error) error {
	start, wait := time.Now(), s.limits.backoff
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := request(ctx)
		if err == nil {
			return nil
		}
		if ctxErr := ctx.Err(); ctxErr != nil {
			return ctxErr
		}
		if !isTransient(err) || time.Since(start) >= s.limits.retry {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait/2+1)): //nolint:gosec // a delay needs no secure random numbers
		}
		wait = min(2*wait, maxBackoff)
	}
}
