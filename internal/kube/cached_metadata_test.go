package kube

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWhatACacheKeepsOfTheMetadata(t *testing.T) {
	long := strings.Repeat("x", maxCachedAnnotations)
	tests := map[string]struct {
		have, want map[string]string
	}{
		"nothing":                         {nil, nil},
		"annotations of Kubernetes stay":  {map[string]string{"volume.kubernetes.io/selected-node": "n"}, map[string]string{"volume.kubernetes.io/selected-node": "n"}},
		"annotations of CSI stay":         {map[string]string{"csi.storage.k8s.io/a": "b"}, map[string]string{"csi.storage.k8s.io/a": "b"}},
		"this program's annotations stay": {map[string]string{"reclaim.holdfast.io/node": "n"}, map[string]string{"reclaim.holdfast.io/node": "n"}},
		"other people's go":               {map[string]string{"team.example.com/notes": "x", "notes": "x", "not-kubernetes.io/a": "b"}, nil},
		"what kubectl applied last goes":  {map[string]string{corev1.LastAppliedConfigAnnotation: "{}"}, nil},
		"one that is too large goes":      {map[string]string{"a.kubernetes.io/a": long, "b.kubernetes.io/b": "b"}, map[string]string{"b.kubernetes.io/b": "b"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Annotations: tt.have, ManagedFields: []metav1.ManagedFieldsEntry{{}}}}
			if _, err := StripMetadata(claim); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(metav1.ObjectMeta{Annotations: tt.want}, claim.ObjectMeta); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCachedAnnotationsAreBoundedTogether(t *testing.T) {
	m := &metav1.ObjectMeta{Annotations: map[string]string{}}
	for i := range 1000 {
		m.Annotations[fmt.Sprintf("a%d.kubernetes.io/a", i)] = strings.Repeat("x", 256)
	}
	StripAnnotations(m)
	size := 0
	for key, value := range m.Annotations {
		size += len(key) + len(value)
	}
	if size > maxCachedAnnotations || size < maxCachedAnnotations/2 {
		t.Errorf("%d bytes are kept", size)
	}
}

func TestKeepAnnotations(t *testing.T) {
	m := &metav1.ObjectMeta{Annotations: map[string]string{"volume.kubernetes.io/selected-node": "n", "volume.kubernetes.io/other": "x"}}
	KeepAnnotations(m, "volume.kubernetes.io/selected-node", "missing")
	if got := slices.Collect(maps.Keys(m.Annotations)); len(got) != 1 || got[0] != "volume.kubernetes.io/selected-node" {
		t.Errorf("got %q", got)
	}
}

// The record of a pending operation may be larger.
func TestLeasesKeepTheirAnnotations(t *testing.T) {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"provision.holdfast.io/intent": strings.Repeat("x", 200<<10)}}}
	if _, err := StripMetadata(lease); err != nil || len(lease.Annotations) != 1 {
		t.Errorf("got %d annotations, %v", len(lease.Annotations), err)
	}
}
