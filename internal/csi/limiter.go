package csi

import (
	"context"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// limiter limits the concurrent calls of one method to what the driver can do.
// There is no limit until a call times out: then the number of calls in flight was
// too large, and the limit becomes half of it. It grows by one for each batch of
// that size that is answered in time (additive increase, multiplicative decrease,
// as in TCP). Each method has its own limiter, so that slow deletions do not hold
// up creations.
type limiter struct {
	mu        sync.Mutex
	running   int
	limit     float64 // 0 is unlimited
	decreases int     // how often the limit was lowered
	waiting   []*slot // in order of arrival
}

// A slot is the permission to send one call.
type slot struct {
	ready chan struct{}
	// decreases of the limiter when it gave the slot: of the calls that were in flight
	// together, only the first timeout lowers the limit.
	decreases int
}

// acquire waits for a slot. It returns the error of ctx if that ends first.
func (l *limiter) acquire(ctx context.Context) (*slot, error) {
	s := &slot{ready: make(chan struct{})}
	l.mu.Lock()
	l.waiting = append(l.waiting, s)
	l.admit()
	l.mu.Unlock()
	select {
	case <-s.ready:
		return s, nil
	case <-ctx.Done():
		l.cancel(s)
		return nil, ctx.Err()
	}
}

// admit gives slots to waiting calls as far as the limit allows. The caller holds
// the lock.
func (l *limiter) admit() {
	for len(l.waiting) > 0 && (l.limit == 0 || l.running < int(l.limit)) {
		s := l.waiting[0]
		l.waiting = l.waiting[1:]
		l.running++
		s.decreases = l.decreases
		close(s.ready)
	}
}

// cancel removes a call that no longer waits from the queue. If it has a slot
// already, the next call gets it.
func (l *limiter) cancel(s *slot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := slices.Index(l.waiting, s); at >= 0 {
		l.waiting = slices.Delete(l.waiting, at, at+1)
		return
	}
	l.running--
	l.admit()
}

// errNotSent ends a call that was not sent, which says nothing about the driver.
var errNotSent = status.Error(codes.Canceled, "not sent")

// release frees the slot of a call that has ended and adjusts the limit to its
// result.
func (l *limiter) release(s *slot, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		if s.decreases == l.decreases {
			l.limit = max(1, float64(l.running/2))
			l.decreases++
		}
	case codes.Canceled, codes.Unavailable: // There is no response of the driver.
	default:
		if l.limit > 0 && l.running >= int(l.limit) { // A limit that is not reached has not been tested.
			l.limit += 1 / l.limit
		}
	}
	l.running--
	l.admit()
}

// limiters has a limiter for each method that changes something. Calls that only
// read do not overload a driver.
type limiters map[Method]*limiter

func newLimiters() limiters {
	all := limiters{}
	for _, m := range []Method{
		CreateVolume, DeleteVolume, ControllerPublishVolume, ControllerUnpublishVolume,
		ControllerExpandVolume, ControllerModifyVolume, CreateSnapshot, DeleteSnapshot,
		CreateVolumeGroupSnapshot, DeleteVolumeGroupSnapshot,
	} {
		all[m] = &limiter{}
	}
	return all
}

// acquire waits for a slot of the method and returns the function that frees it.
func (l limiters) acquire(ctx context.Context, m Method) (ended func(error), err error) {
	own, ok := l[m]
	if !ok {
		return func(error) {}, nil
	}
	s, err := own.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return func(err error) { own.release(s, err) }, nil
}

// limitMetric has the same label as the other metrics of calls.
var limitMetric = prometheus.NewDesc("holdfast_csi_operations_limit",
	"Limit of concurrent calls to the CSI driver, lowered after a call timed out.", []string{"method_name"}, nil)

// Describe implements prometheus.Collector.
func (l limiters) Describe(to chan<- *prometheus.Desc) { to <- limitMetric }

// Collect implements prometheus.Collector. Methods without a limit have no series.
func (l limiters) Collect(to chan<- prometheus.Metric) {
	for m, own := range l {
		own.mu.Lock()
		limit := own.limit
		own.mu.Unlock()
		if limit > 0 {
			to <- prometheus.MustNewConstMetric(limitMetric, prometheus.GaugeValue, float64(int(limit)), m.fullName())
		}
	}
}
