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

	"github.com/holdfast-io/holdfast/internal/provision/pending"
)

// Eventually asks until the answer is nil, and fails with the last answer if
// that does not come.
func Eventually(t testing.TB, ask func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), PollInterval, Timeout, true, func(ctx context.Context) (bool, error) {
		now := ask(ctx)
		if last == nil || ctx.Err() == nil { // That there is no time left is no answer.
			last = now
		}
		return now == nil, nil
	})
	if err != nil {
		t.Fatalf("%v; last: %v", err, last)
	}
}

// WaitBound waits until a claim is bound and returns its volume.
func (w *World) WaitBound(t testing.TB, name string) *corev1.PersistentVolume {
	t.Helper()
	var claim *corev1.PersistentVolumeClaim
	Eventually(t, func(ctx context.Context) (err error) {
		claim, err = w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && claim.Status.Phase != corev1.ClaimBound {
			err = fmt.Errorf("claim %s is %s", name, claim.Status.Phase)
		}
		return err
	})
	volume, err := w.Client.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return volume
}

// WaitPVGone waits until a PersistentVolume is no more.
func (w *World) WaitPVGone(t testing.TB, volume *corev1.PersistentVolume) {
	t.Helper()
	Eventually(t, func(ctx context.Context) error {
		v, err := w.Client.CoreV1().PersistentVolumes().Get(ctx, volume.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("%s is still there, %s: %w", volume.Name, v.Status.Phase, err)
	})
}

// WaitNothingLeft waits until neither the cluster nor the driver has anything of
// the test's claims.
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
			return fmt.Errorf("left: %d at the driver, %d PersistentVolumes, %d intents", len(left), len(volumes), len(leases.Items))
		}
		return nil
	})
}

// WaitClaimEvent waits until a claim has an event of that type and reason whose message
// has part in it.
func (w *World) WaitClaimEvent(t testing.TB, claim, kind, reason, part string) {
	t.Helper()
	w.WaitEvent(t, "PersistentVolumeClaim/"+claim, kind, reason, part)
}

// WaitEvent is Told about any object, KIND/NAME. The events of those outside of
// namespaces are in the namespace default.
func (w *World) WaitEvent(t testing.TB, object, kind, reason, part string) {
	t.Helper()
	of, name, _ := strings.Cut(object, "/")
	Eventually(t, func(ctx context.Context) error {
		events, err := w.Client.CoreV1().Events("").List(ctx, metav1.ListOptions{
			FieldSelector: "involvedObject.kind=" + of + ",involvedObject.name=" + name,
		})
		if err != nil {
			return err
		}
		var said []string
		for _, e := range events.Items {
			if outside := e.InvolvedObject.Namespace == ""; !outside && e.Namespace != w.Namespace {
				continue
			}
			if e.Type == kind && e.Reason == reason && strings.Contains(e.Message, part) {
				return nil
			}
			said = append(said, e.Type+" "+e.Reason+": "+e.Message)
		}
		return fmt.Errorf("no %s %s that says %q on %s; there are: %q", kind, reason, part, object, said)
	})
}
