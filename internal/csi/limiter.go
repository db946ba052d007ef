package csi

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// limiter limits the concurrent calls of one method to what the driver can do, and
// those about one target to what that target can do. There is no limit until calls
// time out; scope has the rules. Each method has its own limiter, so that slow
// deletions do not hold up creations.
type limiter struct {
	mu      sync.Mutex
	bounds  bounds
	all     scope // of all calls
	clock   uint64
	waiting []*slot // in order of arrival
}

// bounds are the bounds of limits.
type bounds struct {
	floor   int // no timeout lowers a limit below this
	ceiling int // of the concurrent calls of a method; 0 for none
}

func newLimiter(b bounds) *limiter {
	b.floor = max(1, b.floor)
	return &limiter{bounds: b}
}

// A slot is the permission to send one call.
type slot struct {
	ready chan error // nil when the call may be sent
	scope *scope     // of the call's target
	sent  uint64     // on the limiter's clock
}

// acquire waits for a slot for a call about a target. It returns the error of ctx if
// that ends first. A call about a target that does not answer, and that has as many
// calls in flight as it may have, is rejected: it would only keep a worker from other
// targets.
func (l *limiter) acquire(ctx context.Context, target []target) (*slot, error) {
	s := l.enqueue(target)
	select {
	case err := <-s.ready:
		return s, err
	case <-ctx.Done():
		l.cancel(s)
		return nil, ctx.Err()
	}
}

func (l *limiter) enqueue(target []target) *slot {
	s := &slot{ready: make(chan error, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.scope = l.all.find(target)
	s.scope.use(1)
	l.waiting = append(l.waiting, s)
	l.rejectSilent()
	l.admit()
	return s
}

// admit gives slots to waiting calls as far as the limits allow, and each to the
// target with the fewest calls in flight: one that is slow holds no more slots than
// the others. The caller holds the lock.
func (l *limiter) admit() {
	for l.bounds.ceiling == 0 || l.all.running < l.bounds.ceiling {
		next := -1
		for i, s := range l.waiting {
			if s.scope.full(l.bounds.floor) == nil && (next < 0 || s.scope.fewerThan(l.waiting[next].scope)) {
				next = i
			}
		}
		if next < 0 {
			return
		}
		s := l.waiting[next]
		l.waiting = slices.Delete(l.waiting, next, next+1)
		s.scope.run(1)
		l.clock++
		s.sent = l.clock
		s.ready <- nil
	}
}

// rejectSilent rejects the waiting calls about targets that do not answer. The caller
// holds the lock.
func (l *limiter) rejectSilent() {
	l.waiting = slices.DeleteFunc(l.waiting, func(s *slot) bool {
		silent := s.scope.full(l.bounds.floor)
		if silent == nil || !silent.silent {
			return false
		}
		s.scope.use(-1)
		s.ready <- status.Errorf(codes.Unavailable, "not sent: earlier calls about %s have had no response, and %d are in flight", silent.name, silent.running)
		return true
	})
}

// cancel removes a call that no longer waits from the queue. If it has a slot
// already, the next call gets it.
func (l *limiter) cancel(s *slot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := slices.Index(l.waiting, s); at >= 0 {
		l.waiting = slices.Delete(l.waiting, at, at+1)
		s.scope.use(-1)
		return
	}
	if err := <-s.ready; err == nil {
		l.leave(s)
	}
}

// errNotSent ends a call that was not sent, which says nothing about the driver.
var errNotSent = status.Error(codes.Canceled, "not sent")

// release frees the slot of a call that has ended and adjusts the limits to its
// result.
func (l *limiter) release(s *slot, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		s.scope.timedOut(s.sent, l.clock, l.bounds.floor)
	case codes.Canceled, codes.Unavailable: // There is no response of the driver.
	default:
		s.scope.answered(l.clock)
	}
	l.leave(s)
}

// leave frees a slot. The caller holds the lock.
func (l *limiter) leave(s *slot) {
	s.scope.run(-1)
	s.scope.use(-1)
	l.rejectSilent()
	l.admit()
}

// lowest returns the lowest limit in force, of the method or of a target, 0 for none,
// and how many targets have one.
func (l *limiter) lowest() (limit, targets int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.walk(func(s *scope) {
		if s.limit == 0 {
			return
		}
		if limit == 0 || int(s.limit) < limit {
			limit = int(s.limit)
		}
		if s.parent != nil {
			targets++
		}
	})
	return limit, targets
}

// limiters has a limiter for each method that changes something. Calls that only
// read do not overload a driver.
type limiters map[Method]*limiter

func newLimiters(b bounds) limiters {
	all := limiters{}
	for _, m := range []Method{
		CreateVolume, DeleteVolume, ControllerPublishVolume, ControllerUnpublishVolume,
		ControllerExpandVolume, ControllerModifyVolume, CreateSnapshot, DeleteSnapshot,
		CreateVolumeGroupSnapshot, DeleteVolumeGroupSnapshot,
	} {
		all[m] = newLimiter(b)
	}
	return all
}

// acquire waits for a slot of the method and returns the function that frees it.
func (l limiters) acquire(ctx context.Context, m Method, request any) (ended func(error), err error) {
	own, ok := l[m]
	if !ok {
		return func(error) {}, nil
	}
	s, err := own.acquire(ctx, targetOf(request))
	if err != nil {
		return nil, fmt.Errorf("waiting for one of the concurrent calls to end: %w", err)
	}
	return func(err error) { own.release(s, err) }, nil
}

// The metrics have the same label as the other metrics of calls.
var (
	limitMetric = prometheus.NewDesc("holdfast_csi_operations_limit",
		"Lowest limit of concurrent calls to the CSI driver that is in force, for all calls of the method or for one target, lowered after a call timed out.", []string{"method_name"}, nil)
	limitedTargetsMetric = prometheus.NewDesc("holdfast_csi_operations_limited_targets",
		"Targets of calls (nodes, classes, sources) that have a limit of their own, after calls about them timed out.", []string{"method_name"}, nil)
)

// Describe implements prometheus.Collector.
func (l limiters) Describe(to chan<- *prometheus.Desc) { to <- limitMetric; to <- limitedTargetsMetric }

// Collect implements prometheus.Collector. Methods without a limit have no series.
func (l limiters) Collect(to chan<- prometheus.Metric) {
	for m, own := range l {
		limit, targets := own.lowest()
		if limit > 0 {
			to <- prometheus.MustNewConstMetric(limitMetric, prometheus.GaugeValue, float64(limit), m.fullName())
			to <- prometheus.MustNewConstMetric(limitedTargetsMetric, prometheus.GaugeValue, float64(targets), m.fullName())
		}
	}
}
