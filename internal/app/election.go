package app

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/retry"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// releaseTimeout bounds the release of a Lease. A Lease that is not released in
// this time expires.
const releaseTimeout = 5 * time.Second

// A candidate competes for a Lease on behalf of this process, in every leadership
// term.
//
// client-go's LeaderElector acquires and renews the Lease. A candidate adds what
// the LeaderElector does not do: it watches the Lease (waitUntilFree), frees an
// expired one (freeExpired), and releases its own only after all work has ended
// (release).
type candidate struct {
	options  *LeaderElectionOptions
	name     string
	identity string
	watchdog *leaderelection.HealthzAdaptor
	recorder resourcelock.EventRecorder
	// leases reads and writes the Lease. It has a timeout, so that one request
	// without a response does not cost the Lease.
	leases coordinationv1client.LeasesGetter
	// watches is a client without a timeout, for watching the Lease.
	watches coordinationv1client.LeasesGetter
}

func newCandidate(c *rest.Config, o *LeaderElectionOptions, name string) (*candidate, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("choosing this replica's identity: %w", err)
	}
	e := &candidate{options: o, name: name, identity: host + "_" + string(uuid.NewUUID())}
	c = rest.AddUserAgent(c, "leader-election")
	c.QPS = -1 // Waiting in the rate limiter could cost the Lease.
	if e.watches, err = coordinationv1client.NewForConfig(c); err != nil {
		return nil, fmt.Errorf("creating a client for leader election: %w", err)
	}
	c.Timeout = max(o.RenewDeadline/2, time.Second)
	if e.leases, err = coordinationv1client.NewForConfig(c); err != nil {
		return nil, fmt.Errorf("creating a client for leader election: %w", err)
	}
	return e, nil
}

func (e *candidate) lock() *resourcelock.LeaseLock {
	return &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: Namespace(e.options.Namespace), Name: e.name},
		Client:     e.leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: e.identity, EventRecorder: e.recorder},
		Labels:     e.options.Labels,
	}
}

// lead competes for the Lease, calls onElected when this process has acquired it,
// and renews it until it is lost or ctx ends. It does not release the Lease: work
// that the Lease covers may still run.
func (e *candidate) lead(ctx context.Context, onElected func()) error {
	for {
		led, err := e.runElector(ctx, onElected)
		if led || err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// runElector runs one LeaderElector until this process has led and lost the
// Lease, the Lease becomes free while another replica holds it, or ctx ends. Only
// in the first case led is true.
func (e *candidate) runElector(ctx context.Context, onElected func()) (led bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting, stopWaiting := context.WithCancel(ctx)
	defer stopWaiting()
	var once, onceHeld sync.Once // The elector may run callbacks after Run has returned.
	held := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: e.name, Lock: e.lock(),
		LeaseDuration: e.options.LeaseDuration, RenewDeadline: e.options.RenewDeadline, RetryPeriod: e.options.RetryPeriod,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { once.Do(func() { led = true; stopWaiting(); onElected() }) },
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				if identity != e.identity {
					onceHeld.Do(func() { close(held) })
				}
			},
		},
	})
	if err != nil {
		return false, fmt.Errorf("preparing leader election: %w", err)
	}
	e.watchdog.SetLeaderElection(elector)
	var watching sync.WaitGroup
	watching.Go(func() {
		// The Lease needs no watch until another replica holds it.
		select {
		case <-waiting.Done():
		case <-held:
		}
		if e.waitUntilFree(waiting) {
			cancel() // A new elector tries at once, this one only after the retry period.
		}
	})
	elector.Run(ctx)
	stopWaiting()
	watching.Wait()
	once.Do(func() {})
	// The elector may acquire the Lease in the moment in which the watch reports
	// it as free. That counts as led and lost: it costs a short term, and anything
	// else would have to prove that onElected is not about to run.
	return led || ctx.Err() == nil || elector.IsLeader(), nil
}

// waitUntilFree returns true when nobody holds the Lease, and false when ctx ends.
//
// client-go does not watch the Lease. It polls, with pauses of up to 2.2 retry
// periods, and a successor would wait as long after a release
// (TestAReleasedLeaseIsAcquiredAtOnce).
func (e *candidate) waitUntilFree(ctx context.Context) (free bool) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if free = e.watchUntilFree(ctx); free {
			stop()
		}
	}, e.options.RetryPeriod)
	return free
}

// watchUntilFree watches the Lease and returns true when it is free, and false
// when the watch or ctx ends. Without permission to watch, the elector's polling
// decides.
func (e *candidate) watchUntilFree(ctx context.Context) bool {
	w, err := e.watches.Leases(Namespace(e.options.Namespace)).Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", e.name).String(),
	})
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Cannot watch the Lease; polling it instead", "lease", e.name, "err", err)
		return false
	}
	defer w.Stop()
	var last *coordinationv1.Lease
	expiry := time.NewTimer(e.options.LeaseDuration)
	defer expiry.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-expiry.C:
			e.freeExpired(ctx, last)
			expiry.Reset(e.options.RetryPeriod) // In case that failed.
		case event, ok := <-w.ResultChan():
			if !ok || isFreed(event) {
				return ok
			}
			if lease, is := event.Object.(*coordinationv1.Lease); is {
				last = lease
				expiry.Reset(time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second)
			}
		}
	}
}

// freeExpired removes the holder of a Lease that has not been renewed for its
// whole duration, unless the Lease has changed since. All candidates see that
// change at once.
//
// client-go's elector acquires an expired Lease at its next poll only, and a new
// elector counts the duration from its own first poll
// (TestAnExpiredLeaseIsAcquiredAtOnce).
func (e *candidate) freeExpired(ctx context.Context, expired *coordinationv1.Lease) {
	if expired == nil {
		return
	}
	free := expired.DeepCopy()
	free.Spec.HolderIdentity = ptr.To("")
	_, err := e.leases.Leases(free.Namespace).Update(ctx, free, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsConflict(err) {
		klog.FromContext(ctx).V(2).Info("Cannot free the expired Lease; retrying after the retry period", "lease", e.name, "err", err)
	}
}

// isFreed reports whether the Lease has no holder after an event.
func isFreed(event watch.Event) bool {
	lease, ok := event.Object.(*coordinationv1.Lease)
	if !ok {
		return false
	}
	return event.Type == watch.Deleted || ptr.Deref(lease.Spec.HolderIdentity, "") == ""
}

// release releases the Lease, if this process holds it, so that a successor need
// not wait until it expires. No work that the Lease covers may run any more.
//
// client-go's ReleaseOnCancel is not used: it also releases the Lease when a
// renewal has failed, while work still runs (TestALostLeaseEndsAllWorkBeforeTheNextTerm).
func (e *candidate) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	lock := e.lock()
	err := retry.OnError(retry.DefaultBackoff, apierrors.IsConflict, func() error {
		record, _, err := lock.Get(ctx)
		if err != nil || record.HolderIdentity != e.identity {
			return err
		}
		now := metav1.Now()
		return lock.Update(ctx, resourcelock.LeaderElectionRecord{
			LeaderTransitions: record.LeaderTransitions, LeaseDurationSeconds: 1, RenewTime: now, AcquireTime: now,
		})
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("releasing Lease %s: %w", lock.Describe(), err)
	}
	return nil
}
