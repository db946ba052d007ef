package snapshot

import (
	"maps"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// Other programs read and write these strings: upstream's controllers, provisioners and backup
// tools. They must never change, so they are repeated here.
func TestKeysAreUpstreams(t *testing.T) {
	for got, want := range map[string]string{
		AsSourceFinalizer:   "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection",
		BoundFinalizer:      "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection",
		InGroupFinalizer:    "snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection",
		ClaimFinalizer:      "snapshot.storage.kubernetes.io/pvc-as-source-protection",
		GroupBoundFinalizer: "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-bound-protection",

		AllowModeChange:       "snapshot.storage.kubernetes.io/allow-volume-mode-change",
		ManagedBy:             "snapshot.storage.kubernetes.io/managed-by",
		GroupHandleAnnotation: "groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle",
		Yes:                   "yes",

		Single.Content:         "VolumeSnapshotContent",
		Single.Finalizer:       "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection",
		Single.BeingCreated:    "snapshot.storage.kubernetes.io/volumesnapshot-being-created",
		Single.BeingDeleted:    "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted",
		Single.SecretName:      "snapshot.storage.kubernetes.io/deletion-secret-name",
		Single.SecretNamespace: "snapshot.storage.kubernetes.io/deletion-secret-namespace",
		Single.Default:         "snapshot.storage.kubernetes.io/is-default-class",

		Group.Content:         "VolumeGroupSnapshotContent",
		Group.Finalizer:       "groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection",
		Group.BeingCreated:    "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-created",
		Group.BeingDeleted:    "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-deleted",
		Group.SecretName:      "groupsnapshot.storage.kubernetes.io/deletion-secret-name",
		Group.SecretNamespace: "groupsnapshot.storage.kubernetes.io/deletion-secret-namespace",
		Group.Default:         "groupsnapshot.storage.kubernetes.io/is-default-class",

		ContentName("uid"):      "snapcontent-uid",
		GroupContentName("uid"): "groupsnapcontent-uid",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Users have these keys in their classes.
func TestClassParametersAreUpstreams(t *testing.T) {
	for key, use := range map[string]interface {
		Keys() (name, namespace string)
	}{
		"csi.storage.k8s.io/snapshotter-secret":           Snapshotter,
		"csi.storage.k8s.io/snapshotter-list-secret":      Lister,
		"csi.storage.k8s.io/group-snapshotter-secret":     GroupSnapshotter,
		"csi.storage.k8s.io/group-snapshotter-get-secret": GroupGetter,
	} {
		if name, namespace := use.Keys(); name != key+"-name" || namespace != key+"-namespace" {
			t.Errorf("%s: got %s and %s", key, name, namespace)
		}
	}
}

// Drivers read these.
func TestMetadataParametersAreUpstreams(t *testing.T) {
	ref := corev1.ObjectReference{Namespace: "ns", Name: "n"}
	single, group := map[string]string{}, map[string]string{}
	AddMetadataParameters(single, ref, "c")
	AddGroupMetadataParameters(group, ref, "c")
	for kind, told := range map[string]map[string]string{"volumesnapshot": single, "volumegroupsnapshot": group} {
		reserved := "csi.storage.k8s.io/" + kind
		if len(told) != 3 || told[reserved+"/name"] != "n" || told[reserved+"/namespace"] != "ns" || told[reserved+"content/name"] != "c" {
			t.Errorf("%s: the driver is told %v", kind, told)
		}
	}
}

// A secret's name and namespace may have different tokens. An unknown token is an error.
func TestTokensInNamesOfSecrets(t *testing.T) {
	ref := corev1.ObjectReference{Namespace: "ns", Name: "n"}
	tests := map[string]struct {
		name, namespace string
		group           bool
		want            string // NAMESPACE/NAME; empty for an error
	}{
		"none":                      {"s", "system", false, "system/s"},
		"the snapshot's, in a name": {"${volumesnapshot.namespace}.${volumesnapshot.name}", "system", false, "system/ns.n"},
		"the content's, in both":    {"${volumesnapshotcontent.name}", "${volumesnapshotcontent.name}", false, "c/c"},
		"the snapshot's namespace, in a namespace": {"s", "${volumesnapshot.namespace}", false, "ns/s"},
		"its name is not for a namespace":          {"s", "${volumesnapshot.name}", false, ""},
		"a claim's annotation is not known":        {"${pvc.annotations['team']}", "system", false, ""},
		"an unknown token":                         {"${volumesnapshot.uid}", "system", false, ""},
		"an empty name":                            {"", "system", false, ""},
		"a name that no secret can have":           {"A_B", "system", false, ""},
		"a namespace that none can have":           {"s", "a.b", false, ""},
		"the group's, in a name":                   {"${volumegroupsnapshot.namespace}.${volumegroupsnapshot.name}", "system", true, "system/ns.n"},
		"the group's content's, in both":           {"${volumegroupsnapshotcontent.name}", "${volumegroupsnapshotcontent.name}", true, "c/c"},
		"a single snapshot's are not for a group":  {"${volumesnapshot.name}", "system", true, ""},
		"a group's are not for a single snapshot":  {"${volumegroupsnapshot.name}", "system", false, ""},
		"the group's name is not for a namespace":  {"s", "${volumegroupsnapshot.name}", true, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			use, words := Snapshotter, Tokens("c", ref)
			if tt.group {
				use, words = GroupSnapshotter, GroupTokens("c", ref)
			}
			key, keyNamespace := use.Keys()
			got, err := use.Resolve(map[string]string{key: tt.name, keyNamespace: tt.namespace}, words)
			if (err != nil) != (tt.want == "") || err == nil && got.Namespace+"/"+got.Name != tt.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// Neither controller can work without these resources.
func TestRequiredResources(t *testing.T) {
	if Resources.String() != "snapshot.storage.k8s.io/v1" || !slices.Equal(Resources.Names, []string{"volumesnapshots", "volumesnapshotcontents", "volumesnapshotclasses"}) {
		t.Errorf("it is %v", Resources)
	}
}

// Dashboards rely on the metric's name, labels and buckets.
func TestOperationMetricIsUpstreams(t *testing.T) {
	o := NewOperationDurations()
	o.Succeeded(Wait{UID: "uid", Operation: OperationReady, RequestedAt: o.now(), Driver: "csi.example.com"})
	registry := prometheus.NewRegistry()
	registry.MustRegister(o)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "snapshot_controller_operation_total_seconds" {
		t.Fatalf("got %v, %v", families, err)
	}
	of := families[0].GetMetric()[0]
	labels, bounds := map[string]string{}, []float64{}
	for _, l := range of.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	for _, b := range of.GetHistogram().GetBucket() {
		bounds = append(bounds, b.GetUpperBound())
	}
	want := map[string]string{
		"driver_name": "csi.example.com", "operation_name": "CreateSnapshotAndReady", "snapshot_type": "dynamic", "operation_status": "success",
	}
	if !maps.Equal(labels, want) || !slices.Equal(bounds, []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600}) {
		t.Errorf("it has the labels %v and the buckets %v", labels, bounds)
	}
	names := []OperationNames{SingleOperations, GroupOperations}
	if !slices.Equal(names, []OperationNames{
		{Create: "CreateSnapshot", Ready: "CreateSnapshotAndReady", Delete: "DeleteSnapshot"},
		{Create: "CreateGroupSnapshot", Ready: "CreateGroupSnapshotAndReady", Delete: "DeleteGroupSnapshot"},
	}) {
		t.Errorf("the operations are %v", names)
	}
}
