package app

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// chooseNamespace returns the namespace of the Lease, and false if the program works
// without leader election. may reports whether this account may have the Lease in a
// namespace.
//
// A namespace that was asked for is taken as it is, and --leader-election without one
// means the pod's: there upstream's program has its Lease, so the two never act beside
// each other.
//
// If leader election is only the role's default, manifests of upstream's program must
// work whose permissions are for one replica without election. Then it is the first of
// the default namespace and the pod's in which the account may have a Lease.
func (o *LeaderElectionOptions) chooseNamespace(ctx context.Context, may func(ctx context.Context, namespace string) (bool, error)) (string, bool, error) {
	switch {
	case isAsked(o.namespaceFlag):
		return o.Namespace, true, nil
	case isAsked(o.enabledFlag):
		return "", true, nil
	}
	for _, namespace := range []string{o.Namespace, Namespace("")} {
		ok, err := may(ctx, namespace)
		if ok || err != nil {
			return namespace, ok, err
		}
	}
	return "", false, nil
}

// mayLead reports whether this account may have the Lease in a namespace. It asks for
// the writes of leader election, and the API server does not carry them out.
func (e *candidate) mayLead(ctx context.Context, namespace string) (bool, error) {
	leases := e.leases.Leases(namespace)
	lease, err := leases.Get(ctx, e.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: e.name}}
		_, err = leases.Create(ctx, lease, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	case err == nil:
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
	}
	switch {
	case err == nil, apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return true, nil
	case apierrors.IsForbidden(err), apierrors.IsNotFound(err): // The namespace may be missing.
		klog.FromContext(ctx).V(2).Info("This account may not have the Lease", "lease", e.name, "namespace", namespace, "reason", err.Error())
		return false, nil
	default:
		return false, fmt.Errorf("finding out whether this account may have Lease %s/%s: %w", namespace, e.name, err)
	}
}

// prepareElection decides where the Lease is, or that there is no leader election.
func (p *Program) prepareElection(ctx context.Context) error {
	if !p.Leader.Enabled {
		return nil
	}
	c, err := newCandidate(p.config, &p.Leader, p.LeaseName)
	if err != nil {
		return err
	}
	namespace, ok, err := p.Leader.chooseNamespace(ctx, c.mayLead)
	if err != nil {
		return err
	}
	if !ok {
		p.Leader.Enabled = false
		klog.FromContext(ctx).Info("Working without leader election: nobody asked for it, and this account may have no Lease. Run a single replica, "+
			"or allow get, create, update and watch of leases (coordination.k8s.io) in one of the namespaces",
			"lease", p.LeaseName, "namespaces", []string{p.Leader.Namespace, Namespace("")})
		return nil
	}
	p.Leader.Namespace = namespace
	c.recorder, c.watchdog = p.events, p.endpoint.watchdog
	p.candidate = c
	return nil
}
