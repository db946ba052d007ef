package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// Volume names with one character of the UID collide. For a driver the name identifies
// the volume, so it must not get one name for two claims.
func TestClaimsWithCollidingVolumeNamesDoNotShareAVolume(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.StartProvisioner(t, "--volume-name-uuid-length=1", "--volume-name-prefix="+w.Namespace, "--retry-interval-start=0.1", "--retry-interval-max=1")
	w.CreateClass(t, nil)
	groups := map[string][]string{}
	const claims = 20 // More than there are names.
	for i := range claims {
		c := w.CreateClaim(t, fmt.Sprintf("data-%d", i), nil)
		first := string(c.UID[:1])
		groups[first] = append(groups[first], c.Name)
	}
	for _, group := range groups {
		world.Eventually(t, func(ctx context.Context) error { return oneBound(ctx, w, group) })
	}
	if calls := w.Driver.Calls(csi.CreateVolume); calls != len(groups) {
		t.Errorf("CreateVolume was called %d times for volumes of %d names", calls, len(groups))
	}
	for i := range claims {
		w.DeleteClaim(t, fmt.Sprintf("data-%d", i))
	}
	w.WaitNothingLeft(t)
}

// oneBound wants one claim to be bound, and an event on all others that says why they
// are not.
func oneBound(ctx context.Context, w *world.World, names []string) error {
	bound := 0
	for _, name := range names {
		claim, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if claim.Status.Phase == corev1.ClaimBound {
			bound++
			continue
		}
		events, err := w.Client.CoreV1().Events(w.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
		if err != nil {
			return err
		}
		reported := false
		for _, e := range events.Items {
			reported = reported || strings.Contains(e.Message, "--volume-name-uuid-length")
		}
		if !reported && len(names) > 1 {
			return fmt.Errorf("claim %s has no event about the collision", name)
		}
	}
	if bound != 1 {
		return fmt.Errorf("%d of the claims %v are bound", bound, names)
	}
	return nil
}

func TestTopologyCanBeSwitchedOff(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{Record: true, Segments: []map[string]string{{"zone": "a"}}})
	w.StartProvisioner(t, "--feature-gates=Topology=false")
	w.CreateClass(t, nil)
	w.CreateClaim(t, "data", nil)
	if volume := w.WaitBound(t, "data"); volume.Spec.NodeAffinity != nil {
		t.Errorf("the volume has a node affinity: %v", volume.Spec.NodeAffinity)
	}
	for _, call := range w.Driver.Log() {
		if r, ok := call.Request.(*csipb.CreateVolumeRequest); ok && r.GetAccessibilityRequirements() != nil {
			t.Errorf("the driver got a request with a topology: %v", r.GetAccessibilityRequirements())
		}
	}
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}
