package e2e

import (
	"context"
	"errors"
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

// patient has a first pause after a failure that is much longer than that after a conflict.
var patient = []string{"--retry-interval-start=15s", "--retry-interval-max=15s"}

// A subject is a user for whom a controller acts. The counter has the controller's requests.
type subject struct {
	*proxy.Counter
	name string
	w    *world.World
}

// newSubject returns a user with all permissions.
func newSubject(t *testing.T, w *world.World, role string) *subject {
	t.Helper()
	impersonate(t, w, role, []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}})
	s := &subject{w: w, name: w.Namespace + "-" + role}
	s.Counter = proxy.NewCounter(t, s.config())
	return s
}

func (s *subject) config() *rest.Config {
	config := rest.CopyConfig(s.w.Config)
	config.Impersonate.UserName = s.name
	return config
}

// deny makes a ValidatingAdmissionPolicy deny the subject's changes of objects, with the
// default reason, and waits until it is in effect. The returned function deletes it.
func (s *subject) deny(t *testing.T, group, resource string) (undo func()) {
	t.Helper()
	rule := func(group, resource string) admissionv1.NamedRuleWithOperations {
		return admissionv1.NamedRuleWithOperations{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Update},
			Rule:       admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{"*"}, Resources: []string{resource}},
		}}
	}
	api, all := s.w.Client.AdmissionregistrationV1(), metav1.CreateOptions{}
	_, err := api.ValidatingAdmissionPolicies().Create(t.Context(), &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: s.name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{rule(group, resource), rule("", "configmaps")}},
			MatchConditions:  []admissionv1.MatchCondition{{Name: "user", Expression: "request.userInfo.username == '" + s.name + "'"}},
			Validations:      []admissionv1.Validation{{Expression: "false", Message: "frozen by a change freeze"}},
		},
	}, all)
	must(t, err)
	_, err = api.ValidatingAdmissionPolicyBindings().Create(t.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: s.name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}, all)
	must(t, err)
	undo = func() {
		_ = api.ValidatingAdmissionPolicyBindings().Delete(context.Background(), s.name, metav1.DeleteOptions{})
		_ = api.ValidatingAdmissionPolicies().Delete(context.Background(), s.name, metav1.DeleteOptions{})
	}
	t.Cleanup(undo)
	s.waitDenied(t)
	return undo
}

// waitDenied waits until the policy denies a change.
func (s *subject) waitDenied(t *testing.T) {
	t.Helper()
	own, err := kubernetes.NewForConfig(s.config())
	must(t, err)
	probe := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.w.Namespace, Name: s.name}}
	_, err = s.w.Client.CoreV1().ConfigMaps(s.w.Namespace).Create(t.Context(), probe, metav1.CreateOptions{})
	must(t, err)
	world.Eventually(t, func(ctx context.Context) error {
		_, err := own.CoreV1().ConfigMaps(s.w.Namespace).Patch(ctx, probe.Name, types.MergePatchType, []byte(`{"data":{"a":"b"}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsInvalid(err) {
			return errors.Join(errors.New("the policy does not deny"), err)
		}
		return nil
	})
}

// snapshotWorld has a bound claim data, a class, and a snapshot-controller.
func snapshotWorld(t *testing.T, args ...string) (*world.World, client.Client) {
	t.Helper()
	w := world.New(t, csitest.Options{})
	api := w.SnapshotClient(t)
	w.CreateSnapshotClass(t, api, nil)
	createBoundClaimOn(t, w, "", "data", nil)
	w.StartSnapshotController(t, args...)
	return w, api
}

const policyDenies = "denied request: frozen by a change freeze"

// The user learns what is denied and by whom, few requests are made meanwhile, and all goes
// on when the policy is deleted.
func TestDeniedFinalizerOfAClaimIsReportedOnTheSnapshot(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := w.SnapshotClient(t)
	w.CreateSnapshotClass(t, api, nil)
	createBoundClaimOn(t, w, "", "data", nil)
	controller := newSubject(t, w, "controller")
	undo := controller.deny(t, "", "persistentvolumeclaims")
	w.StartSnapshotController(t, append(patient, "--kubeconfig="+controller.Kubeconfig)...)
	w.StartSnapshotter(t)
	w.CreateSnapshot(t, api, "one", "data", nil)
	w.WaitEvent(t, "VolumeSnapshot/one", corev1.EventTypeWarning, "SnapshotContentCreationFailed", policyDenies)
	w.WaitSnapshotError(t, api, "one", "adding the finalizer to claim data: ")
	w.WaitSnapshotError(t, api, "one", "change the policy, or exempt this controller's account from it")
	undo()
	if s := w.WaitSnapshotReady(t, api, "one"); s.Status.Error != nil {
		t.Errorf("the status has an error: %+v", s.Status.Error)
	}
	w.DeleteSnapshot(t, api, "one")
	w.WaitNoSnapshotsLeft(t, api)
}

// While a snapshot cannot be taken, its claim says that it waits for it.
func TestDeniedWriteOfAContentIsReportedOnTheSnapshot(t *testing.T) {
	t.Parallel()
	w, api := snapshotWorld(t)
	sidecar := newSubject(t, w, "snapshotter")
	undo := sidecar.deny(t, "snapshot.storage.k8s.io", "volumesnapshotcontents")
	w.StartSnapshotter(t, append(patient, "--kubeconfig="+sidecar.Kubeconfig)...)
	w.CreateSnapshot(t, api, "one", "data", nil)
	s := w.WaitSnapshotError(t, api, "one", policyDenies)
	w.WaitEvent(t, "VolumeSnapshot/one", corev1.EventTypeWarning, "SnapshotContentCreationFailed", policyDenies)
	sidecar.Reset()
	w.DeleteClaim(t, "data")
	w.WaitClaimEvent(t, "data", "", "WaitingForSnapshot", "VolumeSnapshot one")
	// Taken for a conflict, the write would have been repeated ten times.
	if n := sidecar.Reset()["PATCH volumesnapshotcontents"]; n > 2 {
		t.Errorf("the denied write was repeated %d times", n)
	}
	undo()
	w.WaitSnapshotReady(t, api, "one")
	w.WaitClaimGone(t, "data")

	undo = sidecar.denyAgain(t)
	w.DeleteSnapshot(t, api, "one")
	w.WaitEvent(t, "VolumeSnapshot/one", corev1.EventTypeWarning, "SnapshotDeletePending", "removing the finalizer of content snapcontent-"+string(s.UID))
	undo()
	w.WaitNoSnapshotsLeft(t, api)
}

// denyAgain denies changes of contents again.
func (s *subject) denyAgain(t *testing.T) (undo func()) {
	t.Helper()
	must(t, s.w.Client.CoreV1().ConfigMaps(s.w.Namespace).Delete(t.Context(), s.name, metav1.DeleteOptions{}))
	return s.deny(t, "snapshot.storage.k8s.io", "volumesnapshotcontents")
}

// A permission that is missing is named. Nobody asks whether a csi-snapshotter is running.
func TestSnapshotterWithoutPermissionToPatchSaysSo(t *testing.T) {
	t.Parallel()
	const snapshots = "snapshot.storage.k8s.io"
	w, api := snapshotWorld(t)
	rules := []rbacv1.PolicyRule{
		policyRule("", "create update patch", "events"),
		policyRule(snapshots, "get list watch", "volumesnapshotclasses", "volumesnapshotcontents"),
		policyRule("groupsnapshot.storage.k8s.io", "get list watch", "volumegroupsnapshotclasses", "volumegroupsnapshotcontents"),
	}
	w.StartSnapshotter(t, "--retry-interval-max=5s", "--kubeconfig="+impersonate(t, w, "snapshotter", rules))
	w.CreateSnapshot(t, api, "one", "data", nil)
	w.WaitEvent(t, "VolumeSnapshot/one", corev1.EventTypeWarning, kube.ReasonDenied, `cannot patch resource "volumesnapshotcontents" in API group "snapshot.storage.k8s.io"`)
	w.WaitEvent(t, "VolumeSnapshot/one", corev1.EventTypeWarning, kube.ReasonDenied, "grant that account this permission")
	createUnserved(t, w, api)
	w.WaitEvent(t, "VolumeSnapshot/unserved", corev1.EventTypeWarning, "SnapshotNotServed", "is one running?")
	asked, err := w.Client.CoreV1().Events(w.Namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=one,reason=SnapshotNotServed"})
	must(t, err)
	if len(asked.Items) > 0 { // Of the older snapshot this would have been asked before.
		t.Errorf("there is the event %s", asked.Items[0].Message)
	}
	roles := w.Client.RbacV1().ClusterRoles()
	role, err := roles.Get(t.Context(), w.Namespace+"-snapshotter", metav1.GetOptions{})
	must(t, err)
	role.Rules = append(role.Rules, policyRule(snapshots, "patch", "volumesnapshotcontents", "volumesnapshotcontents/status"))
	_, err = roles.Update(t.Context(), role, metav1.UpdateOptions{})
	must(t, err)
	w.WaitSnapshotReady(t, api, "one")
}

// createUnserved creates a snapshot of a driver that has no csi-snapshotter.
func createUnserved(t *testing.T, w *world.World, api client.Client) {
	t.Helper()
	content := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: w.Namespace + "-unserved"},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			Driver: "removed." + w.Name, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete,
			Source:            snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: ptr.To("handle")},
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: w.Namespace, Name: "unserved"},
		},
	}
	must(t, api.Create(t.Context(), content))
	t.Cleanup(func() { must(t, client.IgnoreNotFound(world.ForceDelete(context.Background(), api, content))) })
	w.CreateSnapshot(t, api, "unserved", "", func(s *snapshotv1.VolumeSnapshot) {
		s.Spec = snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &content.Name}}
	})
}

// A driver may be removed before its snapshots. Most users cannot read contents.
func TestADeletionThatNobodyExecutesIsReportedOnTheSnapshot(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := w.SnapshotClient(t)
	w.StartSnapshotController(t)
	createUnserved(t, w, api)
	w.WaitSnapshot(t, api, "unserved", func(s *snapshotv1.VolumeSnapshotStatus) bool { return s.BoundVolumeSnapshotContentName != nil })
	w.DeleteSnapshot(t, api, "unserved")
	w.WaitEvent(t, "VolumeSnapshot/unserved", corev1.EventTypeWarning, "SnapshotNotServed", "is being deleted, and no csi-snapshotter of driver removed."+w.Name)
}

// What the driver says about a snapshot that it does not delete is where the user looks, and
// so it is for a group.
func TestARejectedDeletionIsReportedOnTheSnapshot(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := w.SnapshotClient(t)
	w.CreateSnapshotClass(t, api, nil)
	w.CreateGroupClass(t, api, nil)
	createBoundClaimOn(t, w, "", "data", withLabels("app", "shop"))
	w.StartSnapshotController(t)
	w.StartSnapshotter(t)
	w.CreateSnapshot(t, api, "one", "data", nil)
	w.CreateGroup(t, api, "all", shop, nil)
	w.WaitSnapshotReady(t, api, "one")
	w.WaitGroupReady(t, api, "all")
	w.Driver.FailNext(csi.DeleteSnapshot, codes.FailedPrecondition, "used by a clone")
	w.DeleteSnapshot(t, api, "one")
	w.WaitEvent(t, "VolumeSnapshot/one", corev1.EventTypeWarning, "SnapshotDeletePending", "used by a clone")
	w.WaitSnapshotGone(t, api, "one")
	w.Driver.FailNext(csi.DeleteVolumeGroupSnapshot, codes.FailedPrecondition, "used by a clone")
	w.DeleteGroup(t, api, "all")
	w.WaitEvent(t, "VolumeGroupSnapshot/all", corev1.EventTypeWarning, "SnapshotDeletePending", "used by a clone")
	w.WaitNoGroupsLeft(t, api)
}

// The record of an attachment and its finalizer are denied, and later that finalizer's
// removal.
func TestDeniedWriteOfAnAttachmentIsReportedOnTheClaim(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	createBoundClaimOn(t, w, "", "data", nil)
	attacher := newSubject(t, w, "attacher")
	undo := attacher.deny(t, "storage.k8s.io", "volumeattachments")
	w.StartAttacher(t, append(patient, "--leader-election=false", "--kubeconfig="+attacher.Kubeconfig)...)
	claim, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Get(t.Context(), "data", metav1.GetOptions{})
	must(t, err)
	attachment := w.CreateAttachment(t, claim.Spec.VolumeName, w.CreateCSINode(t, "node", "id-1"))
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, kube.ReasonFailedAttach, "recording the attachment: ")
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, kube.ReasonFailedAttach, policyDenies)
	if n := attacher.Reset()["PATCH volumeattachments"]; n > 2 {
		t.Errorf("the denied write was repeated %d times", n)
	}
	undo()
	w.WaitAttached(t, attachment)
	must(t, w.Client.CoreV1().ConfigMaps(w.Namespace).Delete(t.Context(), attacher.name, metav1.DeleteOptions{}))
	undo = attacher.deny(t, "storage.k8s.io", "volumeattachments")
	w.DeleteAttachment(t, attachment)
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, kube.ReasonFailedDetach, "removing the finalizer from the VolumeAttachment: ")
	undo()
	w.WaitDetached(t, attachment)
}

// A failed condition is no denial: the object has changed since it was read.
func TestFailedConditionIsNoDenial(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api, err := client.New(w.Config, client.Options{})
	must(t, err)
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "o", Finalizers: []string{"example.com/a"}}}
	must(t, api.Create(t.Context(), o))
	t.Cleanup(func() { removeFinalizers(t, api, client.ObjectKeyFromObject(o)) })
	other := o.DeepCopy()
	other.UID = "other"
	stale := o.DeepCopy()
	stale.Finalizers = []string{"example.com/b"}
	tests := map[string]error{
		"another list of finalizers in a JSON patch": kube.AddFinalizer(t.Context(), api, stale, "example.com/c"),
		"another UID in a JSON patch":                kube.AddFinalizer(t.Context(), api, other.DeepCopy(), "example.com/c"),
		"another UID in a merge patch": kube.MergePatch(t.Context(), api, other.DeepCopy(), map[string]any{
			"metadata": map[string]any{"uid": "other", "labels": map[string]any{"a": "b"}},
		}),
		"another version in a merge patch": kube.MergePatch(t.Context(), api, o.DeepCopy(), map[string]any{
			"metadata": map[string]any{"resourceVersion": "1", "labels": map[string]any{"a": "b"}},
		}),
		"another UID in a deletion": api.Delete(t.Context(), o.DeepCopy(), client.Preconditions{UID: ptr.To(types.UID("other"))}),
	}
	if invalid := kube.AddFinalizer(t.Context(), api, o.DeepCopy(), "no slash or domain"); !kube.IsDenied(invalid) {
		t.Errorf("an invalid finalizer: %v", invalid)
	}
	must(t, api.Delete(t.Context(), o.DeepCopy()))
	must(t, api.Get(t.Context(), client.ObjectKeyFromObject(o), o))
	tests["a finalizer for an object that is being deleted"] = kube.AddFinalizer(t.Context(), api, o.DeepCopy(), "example.com/c")
	for name, err := range tests {
		if kube.CauseOf(err) != kube.Changed {
			t.Errorf("%s: %v", name, err)
		}
	}
}
