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

// releaseTimeout is the time for giving a Lease back. Who cannot do it in that
// time leaves it to expire.
const releaseTimeout = 5 * time.Second

// An election is a process's part in the competition for a Lease, over all its
// terms.
type election struct {
	options  *LeaderElectionOptions
	name     string
	identity string
	watchdog *leaderelection.HealthzAdaptor
	recorder resourcelock.EventRecorder
	// leases get and write the Lease, with a timeout so that one request without
	// an answer does not cost it. watches have none.
	leases, watches coordinationv1client.LeasesGetter
}

func newElection(c *rest.Config, o *LeaderElectionOptions, name string) (*election, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("finding a name for this replica: %w", err)
	}
	e := &election{options: o, name: name, identity: host + "_" + string(uuid.NewUUID())}
	c = rest.AddUserAgent(c, "leader-election")
	c.QPS = -1 // A client that waits behind others would cost the Lease.
	if e.watches, err = coordinationv1client.NewForConfig(c); err != nil {
		return nil, fmt.Errorf("making a client for leader election: %w", err)
	}
	c.Timeout = max(o.RenewDeadline/2, time.Second)
	if e.leases, err = coordinationv1client.NewForConfig(c); err != nil {
		return nil, fmt.Errorf("making a client for leader election: %w", err)
	}
	return e, nil
}

func (e *election) lock() *resourcelock.LeaseLock {
	return &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: Namespace(e.options.Namespace), Name: e.name},
		Client:     e.leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: e.identity, EventRecorder: e.recorder},
		Labels:     e.options.Labels,
	}
}

// run competes for the Lease, calls elected when it is ours, and returns when
// it is ours no more, or ctx ends. It does not give the Lease back: work that it
// covers may still go on.
func (e *election) run(ctx context.Context, elected func()) error {
	for {
		led, err := e.compete(ctx, elected)
		if led || err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// compete takes part until the Lease was ours and is no more, another replica
// has given it back, or ctx ends. It reports the first.
func (e *election) compete(ctx context.Context, elected func()) (led bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	aside, leading := context.WithCancel(ctx)
	defer leading()
	var once, rivalOnce sync.Once // The elector may call when it has returned.
	rival := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: e.name, Lock: e.lock(),
		LeaseDuration: e.options.LeaseDuration, RenewDeadline: e.options.RenewDeadline, RetryPeriod: e.options.RetryPeriod,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { once.Do(func() { led = true; leading(); elected() }) },
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				if identity != e.identity {
					rivalOnce.Do(func() { close(rival) })
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
		// There is nothing to wait for before somebody else was seen to have it.
		select {
		case <-aside.Done():
		case <-rival:
		}
		if e.awaitVacancy(aside) {
			cancel() // A new elector tries at once, this one after the retry period.
		}
	})
	elector.Run(ctx)
	leading()
	watching.Wait()
	once.Do(func() {})
	// Who was elected just when the Lease was seen to be free counts as one who
	// has lost it: that costs a moment, and the other way would need a proof.
	return led || ctx.Err() == nil || elector.IsLeader(), nil
}

// awaitVacancy returns true when nobody has the Lease any more, and false when
// ctx ends.
func (e *election) awaitVacancy(ctx context.Context) (vacant bool) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if vacant = e.seeVacancy(ctx); vacant {
			stop()
		}
	}, e.options.RetryPeriod)
	return vacant
}

// seeVacancy watches the Lease until it is free or the watch ends. Who may not
// watch finds out when the retry period is over.
func (e *election) seeVacancy(ctx context.Context) bool {
	w, err := e.watches.Leases(Namespace(e.options.Namespace)).Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", e.name).String(),
	})
	if err != nil {
		klog.FromContext(ctx).V(2).Info("The Lease cannot be watched, so that it is looked at now and then only", "lease", e.name, "err", err)
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
			e.vacate(ctx, last)
			expiry.Reset(e.options.RetryPeriod) // If that was of no use.
		case change, ok := <-w.ResultChan():
			if !ok || vacates(change) {
				return ok
			}
			if lease, is := change.Object.(*coordinationv1.Lease); is {
				last = lease
				expiry.Reset(time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second)
			}
		}
	}
}

// vacate frees the Lease of a leader that was not heard of for as long as the Lease
// lasts, on the condition that it is still as it was seen. Whoever competes learns
// of that at once. An elector by itself only looks every retry period, and counts
// from when it has looked.
func (e *election) vacate(ctx context.Context, expired *coordinationv1.Lease) {
	if expired == nil {
		return
	}
	free := expired.DeepCopy()
	free.Spec.HolderIdentity = ptr.To("")
	_, err := e.leases.Leases(free.Namespace).Update(ctx, free, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsConflict(err) {
		klog.FromContext(ctx).V(2).Info("An expired Lease could not be freed; the retry period decides", "lease", e.name, "err", err)
	}
}

// vacates tells whether the Lease is free after a change.
func vacates(change watch.Event) bool {
	lease, ok := change.Object.(*coordinationv1.Lease)
	if !ok {
		return false
	}
	return change.Type == watch.Deleted || ptr.Deref(lease.Spec.HolderIdentity, "") == ""
}

// release gives the Lease back, if it is ours: whoever waits for it need not
// wait until it expires. Nothing that it covers may go on any more.
func (e *election) release(ctx context.Context) error {
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
		return fmt.Errorf("giving Lease %s back: %w", lock.Describe(), err)
	}
	return nil
}
