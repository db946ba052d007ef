package provision

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Reconciler takes claims to their volumes. It remembers nothing between calls:
// what it needs it reads from the cluster and asks the driver.
type Reconciler struct {
	client  client.Client
	live    client.Reader // past the cache
	driver  *csi.Driver
	events  *kube.Events
	journal *journal
	options *Options
	log     logr.Logger // for what happens outside of Reconcile
}

// Reconcile takes one claim a step closer to its volume. The claim may be gone:
// what was begun for it is brought to an end all the same.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	again, err := r.do(ctx, s, decide(s, r.options))
	return reconcile.Result{RequeueAfter: again}, err
}

// do takes one step. It returns after how long to look again, 0 for when
// something changes, or an error for after a pause that grows.
func (r *Reconciler) do(ctx context.Context, s seen, next step) (again time.Duration, err error) {
	switch next.kind {
	case say:
		r.tell(s, next)
	case moveOn:
		r.tell(s, next)
		return 0, r.unselectNode(ctx, s.claim)
	case begin:
		i, err := r.begin(ctx, s)
		if err != nil {
			return 0, err
		}
		return r.carry(ctx, s, i)
	case carry:
		return r.carry(ctx, s, s.intent)
	case forget:
		return 0, r.journal.erase(ctx, s.intent)
	case rest:
	}
	return 0, nil
}

func (r *Reconciler) tell(s seen, next step) {
	if next.reason == kube.ReasonProvisioningFailed {
		r.events.Warning(s.claim, next.reason, next.message)
		return
	}
	r.events.Normal(s.claim, next.reason, next.message)
}

// fails tells the owner of a claim, if there still is one, what went wrong.
func (r *Reconciler) fails(s seen, err error) {
	if s.claim != nil {
		r.events.Warning(s.claim, kube.ReasonProvisioningFailed, err.Error())
	}
}

// begin puts the intent on record.
func (r *Reconciler) begin(ctx context.Context, s seen) (*intent, error) {
	i, err := plan(s, r.options)
	if err != nil {
		r.fails(s, err)
		return nil, fmt.Errorf("planning the volume: %w", err)
	}
	i, err = r.journal.write(ctx, i)
	if err != nil {
		r.fails(s, err)
	}
	return i, err
}
