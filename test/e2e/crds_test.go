package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// applyCommand returns the command in the help of "holdfast crds".
func applyCommand(t *testing.T) string {
	t.Helper()
	programs, err := world.Programs()
	must(t, err)
	help, err := exec.CommandContext(t.Context(), filepath.Join(programs, "holdfast"), "crds", "--help").Output()
	must(t, err)
	for line := range strings.Lines(string(help)) {
		if strings.Contains(line, "| kubectl") {
			return "PATH=$PWD/bin:$PATH; " + strings.TrimSpace(line)
		}
	}
	t.Fatalf("the help has no command:\n%s", help)
	return ""
}

// Applying the CRDs updates existing ones in place, whoever installed them and how:
// the objects stay, and so do others' additions to the CRDs.
func TestCRDsAreAppliedOverExistingOnes(t *testing.T) {
	t.Parallel()
	dir, line := checkoutDir(t), applyCommand(t)
	for _, row := range []struct {
		name, put string
		conflicts bool
	}{
		{name: "by the help's own command", put: line},
		{name: "by client-side apply", put: "bin/holdfast crds | kubectl apply -f -"},
		{name: "by kubectl create", put: "bin/holdfast crds | kubectl create -f -"},
		{name: "by server-side apply of another manager", put: "bin/holdfast crds | kubectl apply --server-side --field-manager=helm -f -"},
		{
			name:      "by server-side apply of another manager, of another release",
			put:       "bin/holdfast crds | sed 's/name: ReadyToUse/name: Ready/' | kubectl apply --server-side --field-manager=helm -f -",
			conflicts: true,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := cluster.NewAPIOnly(t)
			sh := func(commands ...string) {
				t.Helper()
				if out, err := runShell(t.Context(), t, c, dir, commands...); err != nil {
					t.Fatalf("%v:\n%s", err, out)
				}
			}
			api, err := client.New(c.Config, client.Options{})
			must(t, err)
			apply := line
			sh(row.put)
			sh("kubectl wait --for=condition=Established crd --all --timeout=2m", changeAllCRDs, createOneSnapshot)
			before := listCRDs(t, api)
			if row.conflicts {
				if out, err := runShell(t.Context(), t, c, dir, apply); err == nil || !strings.Contains(out, `conflict with "helm"`) {
					t.Errorf("another manager's fields were taken without --force-conflicts: %v\n%s", err, out)
				}
				apply += " --force-conflicts"
			}
			sh(apply)
			if !row.conflicts {
				if diff := cmp.Diff(before, listCRDs(t, api)); diff != "" {
					t.Errorf("applying changed the CRDs (-before +after):\n%s", diff)
				}
			}
			between := listCRDs(t, api)
			sh(apply)
			if diff := cmp.Diff(between, listCRDs(t, api)); diff != "" {
				t.Errorf("applying again changed the CRDs (-before +after):\n%s", diff)
			}
			for name, s := range listCRDs(t, api) {
				if s.UID != before[name].UID || s.Label != "here" || s.Conversion != before[name].Conversion {
					t.Errorf("%s was %+v and is %+v", name, before[name], s)
				}
			}
			sh(`kubectl get volumesnapshots -n default kept -o jsonpath='{.spec.source.persistentVolumeClaimName}' | grep -x data`,
				`kubectl get volumesnapshots -n default | grep READYTOUSE`)
		})
	}
}

const (
	// changeAllCRDs is what others do to CRDs: they add labels and conversion webhooks.
	changeAllCRDs = `kubectl label crd --all kept=here
		kubectl patch crd volumegroupsnapshots.groupsnapshot.storage.k8s.io --type=merge -p '{"spec": {"conversion": {
			"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://conversion.example.com/"}}}}}'`
	createOneSnapshot = `kubectl create -f - <<-Y
		{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: kept, namespace: default}, spec: {source: {persistentVolumeClaimName: data}}}
		Y`
)

// crdState is the part of a CRD that must not be lost.
type crdState struct {
	UID, Label, Conversion string
	Generation             int64
}

// listCRDs returns the state of all CRDs of the cluster.
func listCRDs(t *testing.T, api client.Client) map[string]crdState {
	t.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion("apiextensions.k8s.io/v1")
	list.SetKind("CustomResourceDefinitionList")
	must(t, api.List(t.Context(), list))
	all := map[string]crdState{}
	for _, crd := range list.Items {
		strategy, _, err := unstructured.NestedString(crd.Object, "spec", "conversion", "strategy")
		must(t, err)
		all[crd.GetName()] = crdState{string(crd.GetUID()), crd.GetLabels()["kept"], strategy, crd.GetGeneration()}
	}
	if len(all) == 0 {
		t.Fatal("there are no CRDs")
	}
	return all
}

const quotaResource corev1.ResourceName = "count/volumesnapshots.snapshot.storage.k8s.io"

// A ResourceQuota can limit the number of snapshots in a namespace.
func TestQuotaLimitsSnapshots(t *testing.T) {
	t.Parallel()
	w := &world.World{Cluster: cluster.New(t)}
	api := w.SnapshotClient(t)
	_, err := w.Client.CoreV1().ResourceQuotas(w.Namespace).Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "snapshots"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{quotaResource: resource.MustParse("1")}},
	}, metav1.CreateOptions{})
	must(t, err)
	waitForQuota(t, w)
	take := func(name string) error {
		return api.Create(t.Context(), &snapshotv1.VolumeSnapshot{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name},
			Spec:       snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &w.Namespace}},
		})
	}
	must(t, take("first"))
	if err := take("second"); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "exceeded quota: snapshots") {
		t.Errorf("a second snapshot where one is allowed: %v", err)
	}
}

// waitForQuota waits until the quota counts snapshots. Its controller looks for new
// CRDs every 30 s, but then updates a quota only when its limits change, or after
// minutes. So this function keeps changing another limit. It returns when the
// controller has seen the last change: after that it would count once more, and for a
// moment miss what was created meanwhile.
func waitForQuota(t *testing.T, w *world.World) {
	t.Helper()
	quotas, other := w.Client.CoreV1().ResourceQuotas(w.Namespace), 1
	world.Eventually(t, func(ctx context.Context) error {
		quota, err := quotas.Get(ctx, "snapshots", metav1.GetOptions{})
		if err != nil {
			return err
		}
		_, counts := quota.Status.Used[quotaResource]
		switch settled := equality.Semantic.DeepEqual(quota.Spec.Hard, quota.Status.Hard); {
		case counts && settled:
			return nil
		case counts:
			return fmt.Errorf("the controller has not seen %v yet", quota.Spec.Hard)
		}
		other++
		patch := fmt.Sprintf(`{"spec": {"hard": {"count/secrets": "%d"}}}`, other)
		if _, err := quotas.Patch(ctx, "snapshots", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			return err
		}
		return fmt.Errorf("the quota counts %v", quota.Status.Used)
	})
}
