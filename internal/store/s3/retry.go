package s3

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	maxBackoff = 5 * time.Second

	// minAttempts are made even if each takes longer than the limit, as a part does on a slow
	// connection.
	minAttempts = 4
)

// retry repeats a request until it succeeds, fails for good, or has failed for too long.
// It returns the last error of the request, or that of the context.
func (s *Store) retry(ctx context.Context, request func(context.Context) error) error {
	err := attempt(ctx, request)
	firstFailure, wait := time.Now(), s.limits.backoff
	for attempts := 1; s.limits.retry > 0 && err != nil && isTransient(err); attempts++ {
		if time.Since(firstFailure) >= s.limits.retry && attempts >= minAttempts {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait/2+1)): //nolint:gosec // a delay needs no secure random numbers
		}
		wait = min(2*wait, maxBackoff)
		err = attempt(ctx, request)
	}
	return err
}

// attempt sends a request once. When the context has ended, its error counts.
func attempt(ctx context.Context, request func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := request(ctx)
	if ctxErr := ctx.Err(); err != nil && ctxErr != nil {
		return ctxErr
	}
	return err
}
