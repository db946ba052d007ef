package schedule

import (
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	checkpointv1alpha1 "github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// A field that a conversion forgets would be lost with the next write of the status, or have
// no effect.
func TestConversionsLoseNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		kind   kind
		status func(client.Object) any
		unused []string // fields of a spec that the kind does not have
	}{
		"SnapshotSchedule":   {snapshotKind{}, func(o client.Object) any { return &o.(*v1alpha1.SnapshotSchedule).Status }, []string{"AllowConcurrent"}},
		"CheckpointSchedule": {checkpointKind{}, func(o client.Object) any { return &o.(*checkpointv1alpha1.CheckpointSchedule).Status }, []string{"AllowConcurrent"}},
	} {
		t.Run(name, func(t *testing.T) {
			full, empty := tt.kind.newSchedule(), tt.kind.newSchedule()
			fill(reflect.ValueOf(full).Elem())
			s := tt.kind.fromObject(full)
			tt.kind.setStatus(empty, &s.Status)
			if diff := cmp.Diff(tt.status(full), tt.status(empty)); diff != "" {
				t.Error(diff)
			}
			for field, value := range reflect.ValueOf(s.Spec).Fields() {
				if value.IsZero() && !slices.Contains(tt.unused, field.Name) {
					t.Errorf("spec: %s is not converted", field.Name)
				}
			}
		})
	}
}

// fill sets all fields to something.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[metav1.Time]() {
			v.Set(reflect.ValueOf(*metaTime(noon)))
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.String:
		v.SetString("something")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(7)
	default: // What is left is not of a schedule's own fields, such as the maps of its metadata.
	}
}

func TestClaimsWithoutAVolumeAreSkipped(t *testing.T) {
	for phase, want := range map[corev1.PersistentVolumeClaimPhase]string{
		corev1.ClaimBound:   "",
		corev1.ClaimPending: "the claim is Pending: it has no volume",
		corev1.ClaimLost:    "the claim is Lost: it has no volume",
		"":                  "the claim is Pending: it has no volume",
	} {
		claim := boundClaim("data")
		claim.Status.Phase = phase
		got := claimTarget(&claim)
		if got.SkipMessage != want || (got.SkipReason == v1alpha1.NotBound) != (want != "") {
			t.Errorf("%q: %s: %s", phase, got.SkipReason, got.SkipMessage)
		}
	}
}
