package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// validObjects has a valid object of each kind.
var validObjects = map[string]string{
	"VolumeSnapshot":           `{spec: {source: {persistentVolumeClaimName: data}}}`,
	"VolumeSnapshotClass":      `{driver: a.example.com, deletionPolicy: Delete, parameters: {kind: fast}}`,
	"VolumeSnapshotContent":    `{spec: {driver: a.example.com, deletionPolicy: Delete, source: {volumeHandle: v1}, volumeSnapshotRef: {name: snap, namespace: default}}}`,
	"VolumeGroupSnapshot":      `{spec: {source: {selector: {matchLabels: {app: db}}}}}`,
	"VolumeGroupSnapshotClass": `{driver: a.example.com, deletionPolicy: Delete, parameters: {kind: fast}}`,
	"VolumeGroupSnapshotContent": `{spec: {driver: a.example.com, deletionPolicy: Delete, volumeGroupSnapshotClassName: fast,
		source: {volumeHandles: [v1, v2]}, volumeGroupSnapshotRef: {name: group, namespace: default}}}`,
}

// A validationRule is what the API server does with an object. Both parts are merge
// patches: object of a valid one, change of that object after it is created.
type validationRule struct {
	name           string
	object, change string
	rejected       string // Part of the error; empty if it is accepted.
}

const existing = `groupSnapshotHandles: {volumeGroupSnapshotHandle: g1, volumeSnapshotHandles: [s1, s2]}`

var validationRules = map[string][]validationRule{
	"VolumeSnapshot": {
		{name: "a claim is snapshotted, with the default class"},
		{name: "a class is named", object: `spec: {volumeSnapshotClassName: fast}`},
		{name: "a class that is named has a name", object: `spec: {volumeSnapshotClassName: ""}`, rejected: "volumeSnapshotClassName must not be the empty string when set"},
		{name: "an existing content is named", object: `spec: {source: {persistentVolumeClaimName: null, volumeSnapshotContentName: c1}}`},
		{name: "a source is needed", object: `spec: {source: {persistentVolumeClaimName: null}}`, rejected: "exactly one of volumeSnapshotContentName and persistentVolumeClaimName must be set"},
		{name: "one source is enough", object: `spec: {source: {volumeSnapshotContentName: c1}}`, rejected: "exactly one of volumeSnapshotContentName and persistentVolumeClaimName must be set"},
		{name: "another claim does not become the source", change: `spec: {source: {persistentVolumeClaimName: other}}`, rejected: "persistentVolumeClaimName is immutable"},
		{
			name:   "a content does not become the source in place of a claim",
			change: `spec: {source: {persistentVolumeClaimName: null, volumeSnapshotContentName: c1}}`, rejected: "persistentVolumeClaimName is required once set",
		},
		{
			name:   "another content does not become the source",
			object: `spec: {source: {persistentVolumeClaimName: null, volumeSnapshotContentName: c1}}`,
			change: `spec: {source: {volumeSnapshotContentName: c2}}`, rejected: "volumeSnapshotContentName is immutable",
		},
		{
			name:   "a claim does not become the source in place of a content",
			object: `spec: {source: {persistentVolumeClaimName: null, volumeSnapshotContentName: c1}}`,
			change: `spec: {source: {persistentVolumeClaimName: data, volumeSnapshotContentName: null}}`, rejected: "volumeSnapshotContentName is required once set",
		},
		{name: "a snapshot of a claim is annotated", change: `metadata: {annotations: {note: kept}}`},
		{
			name:   "a snapshot of a content is annotated",
			object: `spec: {source: {persistentVolumeClaimName: null, volumeSnapshotContentName: c1}}`, change: `metadata: {annotations: {note: kept}}`,
		},
		{name: "a class that was left open is filled in", change: `spec: {volumeSnapshotClassName: fast}`},
	},
	"VolumeSnapshotClass": {
		{name: "a class has a driver and a policy"},
		{name: "a policy is Delete or Retain", object: `deletionPolicy: Keep`, rejected: `Unsupported value: "Keep"`},
		{name: "all of a class may change", change: `{driver: b.example.com, deletionPolicy: Retain, parameters: {kind: slow}}`},
	},
	"VolumeSnapshotContent": {
		{name: "a volume is snapshotted"},
		{name: "an existing snapshot is named", object: `spec: {source: {volumeHandle: null, snapshotHandle: s1}}`},
		{name: "a source is needed", object: `spec: {source: {volumeHandle: null}}`, rejected: "exactly one of volumeHandle and snapshotHandle must be set"},
		{name: "one source is enough", object: `spec: {source: {snapshotHandle: s1}}`, rejected: "exactly one of volumeHandle and snapshotHandle must be set"},
		{name: "the snapshot is named", object: `spec: {volumeSnapshotRef: {name: null}}`, rejected: "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must be set"},
		{name: "the snapshot's namespace is named", object: `spec: {volumeSnapshotRef: {namespace: null}}`, rejected: "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must be set"},
		{
			name: "what is not about the data may change",
			change: `spec: {deletionPolicy: Retain, driver: b.example.com, volumeSnapshotClassName: slow,
				volumeSnapshotRef: {name: other, namespace: kube-system, uid: u1}}`,
		},
		{name: "another volume does not become the source", change: `spec: {source: {volumeHandle: v2}}`, rejected: "volumeHandle is immutable"},
		{name: "a snapshot does not become the source in place of a volume", change: `spec: {source: {volumeHandle: null, snapshotHandle: s1}}`, rejected: "volumeHandle is required once set"},
		{
			name:   "another snapshot does not become the source",
			object: `spec: {source: {volumeHandle: null, snapshotHandle: s1}}`, change: `spec: {source: {snapshotHandle: s2}}`, rejected: "snapshotHandle is immutable",
		},
		{
			name:   "a volume does not become the source in place of a snapshot",
			object: `spec: {source: {volumeHandle: null, snapshotHandle: s1}}`,
			change: `spec: {source: {volumeHandle: v1, snapshotHandle: null}}`, rejected: "snapshotHandle is required once set",
		},
		{name: "a volume mode that was left open is filled in", change: `spec: {sourceVolumeMode: Block}`},
		{name: "a volume mode stays what it is", object: `spec: {sourceVolumeMode: Block}`, change: `spec: {sourceVolumeMode: Filesystem}`, rejected: "sourceVolumeMode is immutable"},
		{name: "a volume mode stays", object: `spec: {sourceVolumeMode: Block}`, change: `spec: {sourceVolumeMode: null}`, rejected: "sourceVolumeMode is required once set"},
		{name: "a size is not negative", change: `status: {restoreSize: -1}`, rejected: "should be greater than or equal to 0"},
	},
	"VolumeGroupSnapshot": {
		{name: "the claims with a label are snapshotted, with the default class"},
		{name: "a class is named", object: `spec: {volumeGroupSnapshotClassName: fast}`},
		{name: "a class that is named has a name", object: `spec: {volumeGroupSnapshotClassName: ""}`, rejected: "volumeGroupSnapshotClassName must not be the empty string when set"},
		{name: "an existing content is named", object: `spec: {source: {selector: null, volumeGroupSnapshotContentName: c1}}`},
		{name: "a source is needed", object: `spec: {source: {selector: null}}`, rejected: "exactly one of selector and volumeGroupSnapshotContentName must be set"},
		{name: "one source is enough", object: `spec: {source: {volumeGroupSnapshotContentName: c1}}`, rejected: "exactly one of selector and volumeGroupSnapshotContentName must be set"},
		{name: "another selector does not become the source", change: `spec: {source: {selector: {matchLabels: {app: web}}}}`, rejected: "selector is immutable"},
		{
			name:   "a content does not become the source in place of a selector",
			change: `spec: {source: {selector: null, volumeGroupSnapshotContentName: c1}}`, rejected: "selector is required once set",
		},
		{
			name:   "another content does not become the source",
			object: `spec: {source: {selector: null, volumeGroupSnapshotContentName: c1}}`,
			change: `spec: {source: {volumeGroupSnapshotContentName: c2}}`, rejected: "volumeGroupSnapshotContentName is immutable",
		},
		{
			name:   "a selector does not become the source in place of a content",
			object: `spec: {source: {selector: null, volumeGroupSnapshotContentName: c1}}`,
			change: `spec: {source: {selector: {matchLabels: {app: db}}, volumeGroupSnapshotContentName: null}}`, rejected: "volumeGroupSnapshotContentName is required once set",
		},
		{name: "a content is bound", change: `status: {boundVolumeGroupSnapshotContentName: c1}`},
		{
			name:   "another content is not bound",
			object: `status: {boundVolumeGroupSnapshotContentName: c1}`,
			change: `status: {boundVolumeGroupSnapshotContentName: c2}`, rejected: "boundVolumeGroupSnapshotContentName is immutable once set",
		},
	},
	"VolumeGroupSnapshotClass": {
		{name: "a class has a driver and a policy"},
		{name: "the driver stays", change: `driver: b.example.com`, rejected: "driver is immutable once set"},
		{name: "the policy stays", change: `deletionPolicy: Retain`, rejected: "deletionPolicy is immutable once set"},
		{name: "the parameters stay", change: `parameters: {kind: slow}`, rejected: "parameters are immutable once set"},
		{name: "a class is annotated", change: `metadata: {annotations: {note: kept}}`},
	},
	"VolumeGroupSnapshotContent": {
		{name: "volumes are snapshotted"},
		{name: "an existing group snapshot is named", object: `spec: {source: {volumeHandles: null, ` + existing + `}}`},
		{name: "the group snapshot's namespace is named", object: `spec: {volumeGroupSnapshotRef: {namespace: null}}`, rejected: "both volumeGroupSnapshotRef.name and volumeGroupSnapshotRef.namespace must be set"},
		{name: "the group snapshot is named", object: `spec: {volumeGroupSnapshotRef: {name: null}}`, rejected: "both volumeGroupSnapshotRef.name and volumeGroupSnapshotRef.namespace must be set"},
		{name: "one source is enough", object: `spec: {source: {` + existing + `}}`, rejected: "exactly one of volumeHandles and groupSnapshotHandles must be set"},
		{name: "a source is needed", object: `spec: {source: {volumeHandles: null}}`, rejected: "exactly one of volumeHandles and groupSnapshotHandles must be set"},
		{name: "the class stays", change: `spec: {volumeGroupSnapshotClassName: slow}`, rejected: "volumeGroupSnapshotClassName is immutable once set"},
		{name: "the driver stays", change: `spec: {driver: b.example.com}`, rejected: "driver is immutable once set"},
		{name: "the policy may change", change: `spec: {deletionPolicy: Retain}`},
		{name: "the group snapshot's name stays", change: `spec: {volumeGroupSnapshotRef: {name: other}}`, rejected: "volumeGroupSnapshotRef.name and volumeGroupSnapshotRef.namespace are immutable"},
		{name: "the group snapshot's namespace stays", change: `spec: {volumeGroupSnapshotRef: {namespace: other}}`, rejected: "volumeGroupSnapshotRef.name and volumeGroupSnapshotRef.namespace are immutable"},
		{name: "the group snapshot's UID is filled in", change: `spec: {volumeGroupSnapshotRef: {uid: u1}}`},
		{
			name:   "the group snapshot's UID stays what it is",
			object: `spec: {volumeGroupSnapshotRef: {uid: u1}}`, change: `spec: {volumeGroupSnapshotRef: {uid: u2}}`, rejected: "volumeGroupSnapshotRef.uid is immutable once set",
		},
		{
			name:   "the group snapshot's UID stays",
			object: `spec: {volumeGroupSnapshotRef: {uid: u1}}`, change: `spec: {volumeGroupSnapshotRef: {uid: null}}`, rejected: "volumeGroupSnapshotRef.uid is immutable once set",
		},
		{name: "other volumes do not become the source", change: `spec: {source: {volumeHandles: [v1, v3]}}`, rejected: "volumeHandles is immutable"},
		{
			name:   "a group snapshot does not become the source in place of volumes",
			change: `spec: {source: {volumeHandles: null, ` + existing + `}}`, rejected: "volumeHandles is required once set",
		},
		{
			name:   "other snapshots do not become the source",
			object: `spec: {source: {volumeHandles: null, ` + existing + `}}`,
			change: `spec: {source: {groupSnapshotHandles: {volumeSnapshotHandles: [s1, s3]}}}`, rejected: "groupSnapshotHandles is immutable",
		},
		{
			name:   "volumes do not become the source in place of a group snapshot",
			object: `spec: {source: {volumeHandles: null, ` + existing + `}}`,
			change: `spec: {source: {volumeHandles: [v1, v2], groupSnapshotHandles: null}}`, rejected: "groupSnapshotHandles is required once set",
		},
		{
			name:   "the handle of a created group snapshot does not change",
			object: `status: {volumeGroupSnapshotHandle: g1}`, change: `status: {volumeGroupSnapshotHandle: g2}`, rejected: "volumeGroupSnapshotHandle is immutable once set",
		},
		{name: "the handle of a deleted group snapshot is removed", object: `status: {volumeGroupSnapshotHandle: g1}`, change: `status: {volumeGroupSnapshotHandle: null}`},
	},
}

// The API server rejects objects that no controller could handle, and changes of
// fields that controllers have acted on, in every supported version. The API server is
// the test's own: no controller acts on the objects.
func TestAPIServerValidatesSnapshotObjects(t *testing.T) {
	t.Parallel()
	c := cluster.NewAPIOnly(t)
	world.InstallCRDs(t, c.Config)
	api, err := client.New(c.Config, client.Options{})
	must(t, err)
	for kind, all := range validationRules {
		versions := []string{"snapshot.storage.k8s.io/v1"}
		if strings.HasPrefix(kind, "VolumeGroup") {
			versions = []string{"groupsnapshot.storage.k8s.io/v1", "groupsnapshot.storage.k8s.io/v1beta2"}
		}
		for _, version := range versions {
			for i, r := range all {
				t.Run(fmt.Sprintf("%s of %s: %s", kind, version, r.name), func(t *testing.T) {
					o := &unstructured.Unstructured{Object: mergeObjects(parseYAML(t, validObjects[kind]), parseYAML(t, r.object))}
					o.SetAPIVersion(version)
					o.SetKind(kind)
					o.SetName(fmt.Sprintf("rule-%s-%d", version[strings.Index(version, "/")+1:], i))
					if kind == "VolumeSnapshot" || kind == "VolumeGroupSnapshot" {
						o.SetNamespace(c.Namespace)
					}
					err := create(t.Context(), api, o)
					if r.change != "" {
						must(t, err)
						err = change(t, api, o, parseYAML(t, r.change))
					}
					switch {
					case r.rejected == "" && err != nil:
						t.Errorf("it is rejected: %v", err)
					case r.rejected != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), r.rejected)):
						t.Errorf("it is not rejected with %q: %v", r.rejected, err)
					}
				})
			}
		}
	}
}

// create creates an object and its status, which takes two requests.
func create(ctx context.Context, api client.Client, o *unstructured.Unstructured) error {
	status, ok := o.Object["status"]
	if err := api.Create(ctx, o); err != nil || !ok {
		return err
	}
	o.Object["status"] = status
	return api.Status().Update(ctx, o)
}

// change patches an object, or its status if the patch has one.
func change(t *testing.T, api client.Client, o *unstructured.Unstructured, patch map[string]any) error {
	t.Helper()
	text, err := json.Marshal(patch)
	must(t, err)
	merge := client.RawPatch(types.MergePatchType, text)
	if _, ok := patch["status"]; ok {
		return api.Status().Patch(t.Context(), o, merge)
	}
	return api.Patch(t.Context(), o, merge)
}

func parseYAML(t *testing.T, text string) map[string]any {
	t.Helper()
	all := map[string]any{}
	must(t, yaml.Unmarshal([]byte(text), &all))
	return all
}

// mergeObjects implements RFC 7386: null removes a key, maps are merged, everything
// else is replaced.
func mergeObjects(into, patch map[string]any) map[string]any {
	all := map[string]any{}
	maps.Copy(all, into)
	for key, value := range patch {
		deeper, ok := value.(map[string]any)
		switch below, _ := all[key].(map[string]any); {
		case value == nil:
			delete(all, key)
		case ok:
			all[key] = mergeObjects(below, deeper)
		default:
			all[key] = value
		}
	}
	return all
}
