package volume

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

func TestDecideRestore(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*restoreState)
		want   action
		says   string
	}{
		"a mounted volume stays while the pod is restored": {func(*restoreState) {}, poll, ""},
		"a volume that is not mounted gets a pod":          {func(s *restoreState) { s.pod, s.mount.MountedBy = nil, "" }, createPod, ""},
		"a pod that runs is recorded":                      {func(s *restoreState) { s.mount.MountedBy = "" }, recordMount, ""},
		"a pod that is gone is not recorded any more":      {func(s *restoreState) { s.pod = nil }, recordUnmount, ""},
		"a pod of another node is replaced": {func(s *restoreState) {
			s.pod.Spec.NodeName, s.mount.MountedBy = "n1", ""
		}, deletePod, ""},
		"a claim that is used on another node is named": {func(s *restoreState) {
			s.pod.Status.Phase, s.mount.MountedBy, s.trouble = corev1.PodPending, "", "Multi-Attach error for volume"
		}, wait, "on node n2 waits for PersistentVolumeClaim checkpoint-1: Multi-Attach error"},
		"a claim that is gone is not created again":        {func(s *restoreState) { s.claim, s.pod, s.mount.MountedBy = nil, nil, "" }, wait, "does not exist any more"},
		"another claim of the name does not have the data": {func(s *restoreState) { s.claim.UID, s.pod, s.mount.MountedBy = "other", nil, "" }, wait, "does not exist any more"},
		"a claim that is being deleted is not mounted": {func(s *restoreState) {
			s.claim.DeletionTimestamp, s.pod, s.mount.MountedBy = ago(0), nil, ""
		}, wait, "is being deleted"},

		"a restored pod needs no volume any more":       {func(s *restoreState) { s.restored.Annotations[v1alpha1.AnnotationObservedRestoreFrom] = "c" }, deletePod, ""},
		"nor does one whose request was withdrawn":      {func(s *restoreState) { s.restored.Annotations = nil }, deletePod, ""},
		"nor does one that asks for another Checkpoint": {func(s *restoreState) { s.restored.Annotations[v1alpha1.AnnotationRestoreFrom] = "d" }, deletePod, ""},
		"nor does one that is gone":                     {func(s *restoreState) { s.restored = nil }, deletePod, ""},
		"nor does another one of its name":              {func(s *restoreState) { s.restored.UID = "other" }, deletePod, ""},
		"nor does one that has ended":                   {func(s *restoreState) { s.restored.Status.Phase = corev1.PodFailed }, deletePod, ""},
		"a Checkpoint that is deleted restores nobody":  {func(s *restoreState) { s.checkpoint.DeletionTimestamp = ago(0) }, deletePod, ""},
		"a pod that ends is waited for":                 {func(s *restoreState) { s.restored, s.pod.DeletionTimestamp = nil, ago(0) }, poll, ""},
		"then the mount is forgotten":                   {func(s *restoreState) { s.restored, s.pod = nil, nil }, finish, ""},
		"a foreign pod of the name stays": {func(s *restoreState) {
			s.restored, s.pod.OwnerReferences = nil, nil
		}, finish, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := restoring()
			tt.change(s)
			got := decideRestore(s)
			if got.action != tt.want || !strings.Contains(got.message, tt.says) {
				t.Errorf("got %+v, want action %d and a message with %q", got, tt.want, tt.says)
			}
		})
	}
}

// restoring is the state of a Checkpoint of node n1 whose volume is mounted on n2, where a pod
// is restored.
func restoring() *restoreState {
	s := mounted()
	ready(s)
	m := v1alpha1.RestoreMount{PodUID: "r", PodNamespace: "team", PodName: "copy", NodeName: "n2", Request: "c", MountedBy: "p2"}
	s.checkpoint.Status.RestoreMounts = []v1alpha1.RestoreMount{m}
	s.checkpoint = forNode(s.checkpoint, &m)
	s.pod = newPod(s.checkpoint, &Program{Image: "holdfast"})
	s.pod.UID, s.pod.Spec.NodeName, s.pod.Status.Phase, s.pod.CreationTimestamp = "p2", "n2", corev1.PodRunning, *ago(time.Hour)
	return &restoreState{mount: &m, state: s, restored: &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "copy", UID: "r", Annotations: map[string]string{v1alpha1.AnnotationRestoreFrom: "c"}},
		Spec:       corev1.PodSpec{NodeName: "n2"},
	}}
}

// A restoreRow is one way in which a restore from a volume ends.
type restoreRow struct {
	restored, withdrawn, gone, evicted int // the round in which it happens
	stale                              bool
}

// Whenever the operator is killed: the volume is mounted for a restore, and nothing is left of
// that when it has ended, however.
func TestNothingIsLeftOfARestoreWheneverTheOperatorIsKilled(t *testing.T) {
	t.Parallel()
	scheme := newScheme(t)
	for _, row := range []restoreRow{
		{restored: 6}, {restored: 6, stale: true}, {withdrawn: 3}, {withdrawn: 3, stale: true}, {gone: 3}, {gone: 4, stale: true},
		{evicted: 4, restored: 12}, {evicted: 4, gone: 5},
	} {
		run := func(killAt int, after bool) int {
			s := restoring()
			s.checkpoint.Status.NodeName, s.checkpoint.Status.Volume.PodName, s.checkpoint.Status.Volume.PodUID = "n1", "", ""
			s.checkpoint.Status.RestoreMounts[0].MountedBy = ""
			w := newSweepRun(t, scheme, sweepRow{stale: row.stale})
			must(t, w.server.Delete(t.Context(), w.checkpoint()))
			c := w.checkpoint()
			c.Finalizers = nil
			must(t, w.server.Update(t.Context(), c))
			for _, o := range []client.Object{s.checkpoint, s.claim, s.restored} {
				must(t, w.server.Create(t.Context(), o))
			}
			must(t, w.server.Status().Update(t.Context(), s.checkpoint))
			w.killAt, w.after = killAt, after
			if !w.runRestore(row) && row.restored > 0 {
				t.Errorf("%+v, killed at write %d (after: %v): the volume was never mounted", row, killAt, after)
			}
			if pods, left := w.allPods(), w.checkpoint().Status.RestoreMounts; len(pods) > 0 || len(left) > 0 {
				t.Errorf("%+v, killed at write %d (after: %v): %d pods are left, and %+v", row, killAt, after, len(pods), left)
			}
			return w.writes
		}
		for killAt := range run(0, false) {
			run(killAt+1, false)
			run(killAt+1, true)
		}
	}
}

// lastRestoreRound is when all has to be done.
const lastRestoreRound = 24

// runRestore runs everything until nothing more happens. It returns whether the volume was
// mounted.
func (w *sweepRun) runRestore(row restoreRow) (mounted bool) {
	process := restorer{w.process()}
	for round := 1; round <= lastRestoreRound; round++ {
		w.changeRestored(row, round)
		before := w.checkpoint()
		_, err := process.Reconcile(w.t.Context(), reconcile.Request{NamespacedName: w.key()})
		switch {
		case w.killed && w.killAt > 0:
			w.killed, w.killAt = false, 0
			process = restorer{w.process()}
		case err != nil:
			w.t.Fatalf("round %d: %v", round, err)
		}
		w.cached = before
		w.kubelet()
		for _, m := range w.checkpoint().Status.RestoreMounts {
			pods := w.allPods()
			mounted = mounted || len(pods) == 1 && pods[0].UID == m.MountedBy && pods[0].Status.Phase == corev1.PodRunning
		}
	}
	return mounted
}

// changeRestored changes the restored pod, or the one that mounts the volume.
func (w *sweepRun) changeRestored(row restoreRow, round int) {
	ctx, pod := w.t.Context(), &corev1.Pod{}
	for i := range w.allPods() {
		if holder := w.allPods()[i]; round == row.evicted && holder.DeletionTimestamp.IsZero() {
			must(w.t, w.server.Delete(ctx, &holder))
		}
	}
	if round != row.restored && round != row.withdrawn && round != row.gone {
		return
	}
	must(w.t, w.server.Get(ctx, client.ObjectKey{Namespace: "team", Name: "copy"}, pod))
	switch round {
	case row.gone:
		must(w.t, w.server.Delete(ctx, pod))
		return
	case row.restored:
		pod.Annotations[v1alpha1.AnnotationObservedRestoreFrom] = "c"
	default:
		pod.Annotations = nil
	}
	must(w.t, w.server.Update(ctx, pod))
}
