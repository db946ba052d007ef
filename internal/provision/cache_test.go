package provision

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/protection"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

func TestClaimsAreReducedInTheCache(t *testing.T) {
	bound := func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName, c.Status.Phase = "pv", corev1.ClaimBound }
	going := func(c *corev1.PersistentVolumeClaim) {
		c.DeletionTimestamp = &metav1.Time{}
		c.Finalizers = []string{"kubernetes.io/pvc-protection", kube.CloneSourceFinalizer}
	}
	small := corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "data", UID: uid, ResourceVersion: "7"},
	}
	tests := map[string]struct {
		changes []func(*corev1.PersistentVolumeClaim)
		want    func(*corev1.PersistentVolumeClaim) // nil for all of it
	}{
		"a claim that waits for us is kept whole": {nil, nil},
		"without the annotations of other people": {[]func(*corev1.PersistentVolumeClaim){func(c *corev1.PersistentVolumeClaim) {
			c.Annotations["team.example.com/notes"] = "long"
		}}, func(c *corev1.PersistentVolumeClaim) { *c = *claim() }},
		"a claim that waits for us is kept whole while it is deleted": {[]func(*corev1.PersistentVolumeClaim){going}, nil},
		"a bound claim keeps its volume name and phase":               {[]func(*corev1.PersistentVolumeClaim){bound}, bound},
		"a cloned claim that is being deleted keeps its finalizer": {[]func(*corev1.PersistentVolumeClaim){bound, going},
			func(c *corev1.PersistentVolumeClaim) {
				bound(c)
				going(c)
				c.Finalizers = c.Finalizers[1:]
			}},
		"a claim of another provisioner keeps its identity": {
			[]func(*corev1.PersistentVolumeClaim){func(c *corev1.PersistentVolumeClaim) { c.Annotations = nil }},
			func(*corev1.PersistentVolumeClaim) {}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			have := claim()
			for _, change := range tt.changes {
				change(have)
			}
			want := have.DeepCopy()
			if tt.want != nil {
				want = small.DeepCopy()
				tt.want(want)
			}
			have.ManagedFields = []metav1.ManagedFieldsEntry{{}}
			checkReduced(t, have, want)
		})
	}
}

func TestReducedClaimsShowThatTheyBecomeBound(t *testing.T) {
	foreign, bound := claim(), claim()
	foreign.Annotations, bound.Annotations = nil, nil
	foreign.Spec.VolumeName, bound.Spec.VolumeName, bound.Status.Phase = "pv", "pv", corev1.ClaimBound
	if !becameBound(reduceClaim(foreign), reduceClaim(bound)) || becameBound(reduceClaim(bound), reduceClaim(bound)) {
		t.Error("its clones would not be reconciled, or all the time")
	}
}

func TestVolumesAreReducedInTheCache(t *testing.T) {
	volume := func(source corev1.PersistentVolumeSource) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv", UID: "pv-uid", ResourceVersion: "8", Finalizers: []string{"kubernetes.io/pv-protection"}},
			Spec:       corev1.PersistentVolumeSpec{PersistentVolumeSource: source, ClaimRef: reference(claim())},
			Status:     corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound},
		}
	}
	of := func(driver string) corev1.PersistentVolumeSource {
		return corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver}}
	}
	small := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv", UID: "pv-uid", ResourceVersion: "8"},
		Spec:       corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{UID: uid}},
	}
	tests := map[string]struct{ have, want *corev1.PersistentVolume }{
		"our driver's volume is kept whole":                          {volume(of("csitest.holdfast.io")), volume(of("csitest.holdfast.io"))},
		"another driver's volume keeps the UID of its claim":         {volume(of("other.example.com")), small},
		"a volume without a driver keeps the UID of its claim":       {volume(corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{}}), small},
		"another driver's volume without a claim keeps its identity": {unclaimed(volume(of("other.example.com"))), unclaimed(small)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { checkReduced(t, tt.have, tt.want) })
	}
}

func unclaimed(volume *corev1.PersistentVolume) *corev1.PersistentVolume {
	volume = volume.DeepCopy()
	volume.Spec.ClaimRef = nil
	return volume
}

func checkReduced(t *testing.T, have, want client.Object) {
	t.Helper()
	have = have.DeepCopyObject().(client.Object)
	for range 2 { // As client-go does with the initial list.
		if got, err := options().reduce(have); err != nil || got != any(have) {
			t.Fatalf("the transform returned another object, %v: %v", got, err)
		}
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
}

// server is an API server with one claim, and the client of it. Its cache has
// the least that a cache may have: the claim's identity and annotations.
type server struct {
	client.Client
	claim *corev1.PersistentVolumeClaim
}

func (s *server) Get(_ context.Context, _ client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	s.claim.DeepCopyInto(into.(*corev1.PersistentVolumeClaim))
	return nil
}

func (s *server) Update(_ context.Context, o client.Object, _ ...client.UpdateOption) error {
	s.claim = o.(*corev1.PersistentVolumeClaim)
	return nil
}

func (s *server) cached() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: s.claim.Namespace, Name: s.claim.Name, UID: s.claim.UID, Annotations: s.claim.Annotations,
	}}
}

// An update writes the whole object. If it were built from a reduced object it would
// clear the fields that the cache lacks.
func TestUpdatesAreNotBuiltFromReducedObjects(t *testing.T) {
	selected := claim()
	selected.Annotations[kube.AnnSelectedNode], selected.Annotations["team.example.com/notes"] = "n1", "long"
	clones := source.Source{Kind: source.KindClaim, Namespace: "team", Name: "data"}
	tests := map[string]struct {
		write func(context.Context, *server) error
		want  func(*corev1.PersistentVolumeClaim)
	}{
		"asking for another node": {
			func(ctx context.Context, s *server) error {
				return (&Reconciler{client: s, apiReader: s}).unselectNode(ctx, s.cached())
			},
			func(c *corev1.PersistentVolumeClaim) { delete(c.Annotations, kube.AnnSelectedNode) }},
		"asking for another node than one that has been replaced already": {
			func(ctx context.Context, s *server) error {
				old := s.cached().DeepCopy()
				old.Annotations[kube.AnnSelectedNode] = "n0"
				return (&Reconciler{client: s, apiReader: s}).unselectNode(ctx, old)
			},
			func(*corev1.PersistentVolumeClaim) {}},
		"asking for another node for a claim that was created again": {
			func(ctx context.Context, s *server) error {
				old := s.cached().DeepCopy()
				old.UID = "another"
				return (&Reconciler{client: s, apiReader: s}).unselectNode(ctx, old)
			},
			func(*corev1.PersistentVolumeClaim) {}},
		"protecting a claim that is cloned": {
			func(ctx context.Context, s *server) error {
				return protection.New(s, s, protection.Options{}).Protect(ctx, &pending.Operation{Source: &clones})
			},
			func(c *corev1.PersistentVolumeClaim) { c.Finalizers = []string{kube.CloneSourceFinalizer} }},
		"selecting a node for a claim, of which the cache lacks annotations": {
			func(ctx context.Context, s *server) error {
				o := options()
				o.Node.Name = "n2"
				seen, err := o.reduce(s.claim.DeepCopy())
				if err != nil {
					return err
				}
				return o.Node.Select(ctx, s, s, seen.(*corev1.PersistentVolumeClaim))
			},
			func(c *corev1.PersistentVolumeClaim) { c.Annotations[kube.AnnSelectedNode] = "n2" }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &server{claim: selected.DeepCopy()}
			if err := tt.write(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			want := selected.DeepCopy()
			tt.want(want)
			if diff := cmp.Diff(want, s.claim); diff != "" {
				t.Error(diff)
			}
		})
	}
}
