package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// A process that loses its Lease stops working at once, keeps running, and works again
// when it gets the Lease back. The operation that was in progress is neither lost nor
// repeated as another one.
func TestProcessSurvivesLostLease(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{Record: true})
	at := "http://" + world.FreeAddress(t)
	p := w.StartProvisioner(t, "--leader-election", "--leader-election-lease-duration=3s", "--leader-election-renew-deadline=2s",
		"--leader-election-retry-period=200ms", "--http-endpoint="+strings.TrimPrefix(at, "http://"))
	w.CreateClass(t, nil)
	working := w.Driver.Block(csi.CreateVolume)
	w.CreateClaim(t, "during", nil)
	<-working.Arrived()
	lease := csi.SafeName(w.Name)
	world.Eventually(t, func(ctx context.Context) error {
		return checkServed(ctx, at+"/metrics", fmt.Sprintf(`leader_election_master_status{name=%q} 1`, lease))
	})

	setLeaseHolder(t, w, lease, "another")
	waitForLog(t, p, "Stepped down")
	working.Release()
	world.Eventually(t, func(ctx context.Context) error {
		return checkServed(ctx, at+"/metrics", fmt.Sprintf(`leader_election_master_status{name=%q} 0`, lease))
	})
	for _, path := range []string{"/readyz", "/healthz", "/healthz/leader-election"} {
		world.Eventually(t, func(ctx context.Context) error { return checkServed(ctx, at+path, "ok") })
	}
	w.CreateClaim(t, "meanwhile", nil)
	// Kubernetes has requested the volume, and the process has seen the claim.
	w.WaitClaimEvent(t, "meanwhile", corev1.EventTypeNormal, "ExternalProvisioning", "")
	if n := w.Driver.Calls(csi.CreateVolume); n != 1 {
		t.Errorf("CreateVolume was called %d times, and once before the Lease was lost", n)
	}

	setLeaseHolder(t, w, lease, "")
	w.WaitBound(t, "during")
	w.WaitBound(t, "meanwhile")
	if n := len(w.Driver.Volumes()); n != 2 {
		t.Errorf("the driver has %d volumes for two claims", n)
	}
	checkRunning(t, p)
	w.DeleteClaim(t, "during")
	w.DeleteClaim(t, "meanwhile")
	w.WaitNothingLeft(t)
}

func TestStoppedLeaderReleasesLease(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	first := w.StartProvisioner(t, longLeases()...)
	w.CreateClass(t, nil)
	w.CreateClaim(t, "one", nil)
	w.WaitBound(t, "one")
	at := world.FreeAddress(t)
	second := w.StartProvisioner(t, append(longLeases(), "--http-endpoint="+at)...)
	world.Eventually(t, func(ctx context.Context) error { return checkServed(ctx, "http://"+at+"/readyz", "ok") })

	first.Terminate()
	if err := first.Err(); err != nil {
		t.Errorf("the leader ended with %v", err)
	}
	w.CreateClaim(t, "two", nil)
	w.WaitBound(t, "two")
	w.DeleteClaim(t, "one")
	w.DeleteClaim(t, "two")
	w.WaitNothingLeft(t)
	second.Terminate()
	if err := second.Err(); err != nil {
		t.Errorf("its successor ended with %v", err)
	}
}

func TestFeatureGateKeepsLeaseOnExit(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	for gate, kept := range map[string]bool{"true": false, "false": true} {
		t.Run("gate "+gate, func(t *testing.T) {
			at := world.FreeAddress(t)
			p := w.StartProvisioner(t, append(longLeases(), "--http-endpoint="+at, "--feature-gates=ReleaseLeaderElectionOnExit="+gate)...)
			world.Eventually(t, func(ctx context.Context) error {
				return checkServed(ctx, "http://"+at+"/metrics", fmt.Sprintf(`leader_election_master_status{name=%q} 1`, csi.SafeName(w.Name)))
			})
			p.Terminate()
			if err := p.Err(); err != nil {
				t.Errorf("it ended with %v", err)
			}
			lease, err := w.Client.CoordinationV1().Leases(w.Namespace).Get(t.Context(), csi.SafeName(w.Name), metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if held := ptr.Deref(lease.Spec.HolderIdentity, "") != ""; held != kept {
				t.Errorf("the Lease has the holder %q", ptr.Deref(lease.Spec.HolderIdentity, ""))
			}
			setLeaseHolder(t, w, lease.Name, "")
		})
	}
}

// A volume that is being created when the program gets SIGTERM is completed: its
// successor has nothing to resolve.
func TestStartedOperationIsCompletedOnExit(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	p := w.StartProvisioner(t)
	w.CreateClass(t, nil)
	working := w.Driver.Block(csi.CreateVolume)
	w.CreateClaim(t, "data", nil)
	<-working.Arrived()
	p.Terminate()
	waitForLog(t, p, "Stopping and waiting for leader election runnables")
	working.Release()
	if err := p.Err(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	w.WaitBound(t, "data")
	if n := w.Driver.Calls(csi.CreateVolume); n != 1 {
		t.Errorf("the driver was called %d times", n)
	}
	w.StartProvisioner(t)
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// setLeaseHolder writes a holder into a Lease; "" releases it.
func setLeaseHolder(t *testing.T, w *world.World, name, holder string) {
	t.Helper()
	leases := w.Client.CoordinationV1().Leases(w.Namespace)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		lease, err := leases.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		now := metav1.NowMicro()
		lease.Spec = coordinationv1.LeaseSpec{LeaseDurationSeconds: ptr.To[int32](3600), AcquireTime: &now, RenewTime: &now}
		if holder != "" {
			lease.Spec.HolderIdentity = &holder
		}
		_, err = leases.Update(t.Context(), lease, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
