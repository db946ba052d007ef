package world

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
)

// Eventually calls check until it returns nil. After [Timeout] the test fails with
// the last error.
func Eventually(t testing.TB, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), PollInterval, Timeout, true, func(ctx context.Context) (bool, error) {
		now := check(ctx)
		if last == nil || ctx.Err() == nil { // An expired context says nothing about what is checked.
			last = now
		}
		return now == nil, nil
	})
	if err != nil {
		t.Fatalf("%v; last: %v", err, last)
	}
}

// WaitDeleted waits until get finds no object of that name.
func WaitDeleted[T metav1.Object](t testing.TB, name string, get func(context.Context, string, metav1.GetOptions) (T, error)) {
	t.Helper()
	Eventually(t, func(ctx context.Context) error {
		object, err := get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%s still exists, with the finalizers %q", name, object.GetFinalizers())
		}
		return err
	})
}

// WaitBound waits until a claim is bound and returns its volume.
func (w *World) WaitBound(t testing.TB, name string) *corev1.PersistentVolume {
	t.Helper()
	claim := w.WaitClaim(t, name, func(c *corev1.PersistentVolumeClaim) error {
		if c.Status.Phase != corev1.ClaimBound {
			return fmt.Errorf("claim %s is %s", name, c.Status.Phase)
		}
		return nil
	})
	volume, err := w.Client.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return volume
}

// WaitPV waits until a PersistentVolume passes check, and returns it.
func (w *World) WaitPV(t testing.TB, name string, check func(*corev1.PersistentVolume) error) *corev1.PersistentVolume {
	t.Helper()
	var volume *corev1.PersistentVolume
	Eventually(t, func(ctx context.Context) (err error) {
		if volume, err = w.Client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		return check(volume)
	})
	return volume
}

// WaitPVPhase waits until a PersistentVolume is in a phase.
func (w *World) WaitPVPhase(t testing.TB, name string, phase corev1.PersistentVolumePhase) {
	t.Helper()
	w.WaitPV(t, name, func(v *corev1.PersistentVolume) error {
		if v.Status.Phase != phase {
			return fmt.Errorf("PersistentVolume %s is %s, not %s", name, v.Status.Phase, phase)
		}
		return nil
	})
}

// WaitPVGone waits until a PersistentVolume does not exist any more.
func (w *World) WaitPVGone(t testing.TB, volume *corev1.PersistentVolume) {
	t.Helper()
	WaitDeleted(t, volume.Name, w.Client.CoreV1().PersistentVolumes().Get)
}

// WaitClaimGone waits until a claim does not exist any more.
func (w *World) WaitClaimGone(t testing.TB, name string) {
	t.Helper()
	WaitDeleted(t, name, w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Get)
}

// WaitCalls waits until the driver has had at least n calls of a method.
func (w *World) WaitCalls(t testing.TB, method csi.Method, n int) {
	t.Helper()
	Eventually(t, func(context.Context) error {
		if got := w.Driver.Calls(method); got < n {
			return fmt.Errorf("%s was called %d times, want %d", method, got, n)
		}
		return nil
	})
}

// WaitNothingLeft waits until neither the cluster nor the driver has volumes or
// pending operations of the test's claims.
func (w *World) WaitNothingLeft(t testing.TB) {
	t.Helper()
	Eventually(t, func(ctx context.Context) error {
		volumes, err := w.ListPVs(ctx)
		if err != nil {
			return err
		}
		leases, err := w.Client.CoordinationV1().Leases(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: pending.DriverLabel})
		if err != nil {
			return err
		}
		if left := w.Driver.Volumes(); len(left) > 0 || len(volumes) > 0 || len(leases.Items) > 0 {
			return fmt.Errorf("left are %d volumes at the driver, %d PersistentVolumes and %d pending operations", len(left), len(volumes), len(leases.Items))
		}
		return nil
	})
}

// WaitClaimEvent waits until a claim has an event of that type and reason whose
// message contains part.
func (w *World) WaitClaimEvent(t testing.TB, claim, eventType, reason, part string) {
	t.Helper()
	w.WaitEvent(t, "PersistentVolumeClaim/"+claim, eventType, reason, part)
}

// WaitEvent waits until an object, KIND/NAME, has an event of that type and reason
// whose message contains part. An empty argument matches everything. Events of
// cluster-scoped objects are in namespace default.
func (w *World) WaitEvent(t testing.TB, object, eventType, reason, part string) {
	t.Helper()
	kind, name, _ := strings.Cut(object, "/")
	Eventually(t, func(ctx context.Context) error {
		events, err := w.Client.CoreV1().Events("").List(ctx, metav1.ListOptions{
			FieldSelector: "involvedObject.kind=" + kind + ",involvedObject.name=" + name,
		})
		if err != nil {
			return err
		}
		var found []string
		for _, e := range events.Items {
			if namespaced := e.InvolvedObject.Namespace != ""; namespaced && e.Namespace != w.Namespace {
				continue
			}
			if matches(eventType, e.Type) && matches(reason, e.Reason) && strings.Contains(e.Message, part) {
				return nil
			}
			found = append(found, e.Type+" "+e.Reason+": "+e.Message)
		}
		return fmt.Errorf("%s has no event %s %s with %q, but %q", object, eventType, reason, part, found)
	})
}

// matches reports whether a value is the wanted one, or any is.
func matches(wanted, value string) bool { return wanted == "" || wanted == value }
