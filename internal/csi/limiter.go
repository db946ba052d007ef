package csi

import (
	"context"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// limiter keeps a driver from being asked for more at a time than it can do. As
// long as calls are answered in time it lets all through: how many workers there
// are is the bound. When one is not, what runs at that moment was too much, and
// half of it is let through from then on; with every round of calls that are
// answered in time it is one more (additive increase, multiplicative decrease,
// as TCP does it). Each method has a pace of its own, so that slow deletions do
// not hold up creations.
type limiter struct {
	mu        sync.Mutex
	running   int
	limit     float64 // 0 is none
	decreases int     // how often the limit was lowered
	waiting   []*slot // first come, first served
}

// A slot is a call's permission to be sent.
type slot struct {
	ready chan struct{}
	// decreases when it was given: only one of the calls that were too many together
	// lowers the limit.
	decreases int
}

// acquire waits until the call may be sent. It gives up with the error of ctx.
func (p *limiter) acquire(ctx context.Context) (*slot, error) {
	s := &slot{ready: make(chan struct{})}
	p.mu.Lock()
	p.waiting = append(p.waiting, s)
	p.admit()
	p.mu.Unlock()
	select {
	case <-s.ready:
		return s, nil
	case <-ctx.Done():
		p.cancel(s)
		return nil, ctx.Err()
	}
}

// admit lets through as many of those who wait as the limit allows. The caller
// holds the lock.
func (p *limiter) admit() {
	for len(p.waiting) > 0 && (p.limit == 0 || p.running < int(p.limit)) {
		s := p.waiting[0]
		p.waiting = p.waiting[1:]
		p.running++
		s.decreases = p.decreases
		close(s.ready)
	}
}

// cancel takes a call that was given up off the queue, or gives its place to
// the next one.
func (p *limiter) cancel(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := slices.Index(p.waiting, s); at >= 0 {
		p.waiting = slices.Delete(p.waiting, at, at+1)
		return
	}
	p.running--
	p.admit()
}

// errNotSent ends a call that was not sent: nothing is learned from it.
var errNotSent = status.Error(codes.Canceled, "not sent")

// release ends a call and learns from how it went.
func (p *limiter) release(s *slot, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		if s.decreases == p.decreases {
			p.limit = max(1, float64(p.running/2))
			p.decreases++
		}
	case codes.Canceled, codes.Unavailable: // The driver has not answered.
	default:
		if p.limit > 0 && p.running >= int(p.limit) { // Only a limit that was reached has been tried.
			p.limit += 1 / p.limit
		}
	}
	p.running--
	p.admit()
}

// limiters are the paces of the methods that change something: what only reads is
// not what a driver is overloaded with.
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

// acquire waits for a call's permission and returns what to do when it has ended.
func (p limiters) acquire(ctx context.Context, m Method) (ended func(error), err error) {
	own, ok := p[m]
	if !ok {
		return func(error) {}, nil
	}
	s, err := own.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return func(err error) { own.release(s, err) }, nil
}

// limitMetric has the labels of the other metrics of calls.
var limitMetric = prometheus.NewDesc("holdfast_csi_operations_limit",
	"Calls that are sent to the CSI driver at a time since it did not answer in time.", []string{"method_name"}, nil)

// Describe is a Prometheus collector's.
func (p limiters) Describe(to chan<- *prometheus.Desc) { to <- limitMetric }

// Collect tells the limits of the methods that have one.
func (p limiters) Collect(to chan<- prometheus.Metric) {
	for m, own := range p {
		own.mu.Lock()
		limit := own.limit
		own.mu.Unlock()
		if limit > 0 {
			to <- prometheus.MustNewConstMetric(limitMetric, prometheus.GaugeValue, float64(int(limit)), m.fullName())
		}
	}
}
