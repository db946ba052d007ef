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

// sound are an object of each kind that is as it should be.
var sound = map[string]string{
	"VolumeSnapshot":           `{spec: {source: {persistentVolumeClaimName: data}}}`,
	"VolumeSnapshotClass":      `{driver: a.example.com, deletionPolicy: Delete, parameters: {kind: fast}}`,
	"VolumeSnapshotContent":    `{spec: {driver: a.example.com, deletionPolicy: Delete, source: {volumeHandle: v1}, volumeSnapshotRef: {name: snap, namespace: default}}}`,
	"VolumeGroupSnapshot":      `{spec: {source: {selector: {matchLabels: {app: db}}}}}`,
	"VolumeGroupSnapshotClass": `{driver: a.example.com, deletionPolicy: Delete, parameters: {kind: fast}}`,
	"VolumeGroupSnapshotContent": `{spec: {driver: a.example.com, deletionPolicy: Delete, volumeGroupSnapshotClassName: fast,
		source: {volumeHandles: [v1, v2]}, volumeGroupSnapshotRef: {name: group, namespace: default}}}`,
}

// A rule is what the API server makes of an object. Both parts are merge
// patches: object of a sound one, change of that object once it is there.
type rule struct {
	says           string
	object, change string
	refused        string // With these words, or not at all.
}

const existing = `groupSnapshotHandles: {volumeGroupSnapshotHandle: g1, volumeSnapshotHandles: [s1, s2]}`

var rules = map[string][]rule{
	"VolumeSnapshot": {
		{says: "a claim is snapshotted, with the default class"},
		{says: "a class is named", object: `spec: {volumeSnapshotClassName: fast}`},
		{says: "a class that is named has a name", object: `spec: {volumeSnapshotClassName: ""}`, refused: "volumeSnapshotClassName must not be the empty string when set"},
		{says: "a content that is there is taken", object: `spec: {source: {persistentVolumeClaimName: null, volumeSnapshotContentName: c1}}`},
		{says: "a source is needed", object: `spec: {source: {persistentVolumeClaimName: null}}`, refused: "exactly one of volumeSnapshotContentName and persistentVolumeClaimName must be set"},
		{says: "one source is enough", object: `spec: {source: {volumeSnapshotContentName: c1}}`, refused: "exactly one of volumeSnapshotContentName and persistentVolumeClaimName must be set"},
		{says: "another claim does not become the source", change: `spec: {source: {persistentVolumeClaimName: other}}`, refused: "persistentVolumeClaimName is immutable"},
		{
			says:   "a content does not become the source in place of a claim",
			change: `spec: {source: {persistentVolumeClaimName: null, volumeSnapshotContentName: c1}}`, refused: "persistentVolumeClaimName is required once set",
		},
		{
			says:   "another content does not become the source",
			object: `spec: {source: {persistentVolumeClaimName: null, volumeSnapshotContentName: c1}}`,
			change: `spec: {source: {volumeSnapshotContentName: c2}}`, refused: "volumeSnapshotContentName is immutable",
		},
		{
			says:   "a claim does not become the source in place of a content",
			object: `spec: {source: {persistentVolumeClaimName: null, volumeSnapshotContentName: c1}}`,
			change: `spec: {source: {persistentVolumeClaimName: data, volumeSnapshotContentName: null}}`, refused: "volumeSnapshotContentName is required once set",
		},
		{says: "a snapshot of a claim is annotated", change: `metadata: {annotations: {note: kept}}`},
		{
			says:   "a snapshot of a content is annotated",
			object: `spec: {source: {persistentVolumeClaimName: null, volumeSnapshotContentName: c1}}`, change: `metadata: {annotations: {note: kept}}`,
		},
		{says: "a class that was left open is filled in", change: `spec: {volumeSnapshotClassName: fast}`},
	},
	"VolumeSnapshotClass": {
		{says: "a class has a driver and a policy"},
		{says: "a policy is Delete or Retain", object: `deletionPolicy: Keep`, refused: `Unsupported value: "Keep"`},
		{says: "all of a class may change", change: `{driver: b.example.com, deletionPolicy: Retain, parameters: {kind: slow}}`},
	},
	"VolumeSnapshotContent": {
		{says: "a volume is snapshotted"},
		{says: "a snapshot that is there is taken", object: `spec: {source: {volumeHandle: null, snapshotHandle: s1}}`},
		{says: "a source is needed", object: `spec: {source: {volumeHandle: null}}`, refused: "exactly one of volumeHandle and snapshotHandle must be set"},
		{says: "one source is enough", object: `spec: {source: {snapshotHandle: s1}}`, refused: "exactly one of volumeHandle and snapshotHandle must be set"},
		{says: "the snapshot is named", object: `spec: {volumeSnapshotRef: {name: null}}`, refused: "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must be set"},
		{says: "the snapshot's namespace is named", object: `spec: {volumeSnapshotRef: {namespace: null}}`, refused: "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must be set"},
		{
			says: "what is not about the data may change",
			change: `spec: {deletionPolicy: Retain, driver: b.example.com, volumeSnapshotClassName: slow,
				volumeSnapshotRef: {name: other, namespace: kube-system, uid: u1}}`,
		},
		{says: "another volume does not become the source", change: `spec: {source: {volumeHandle: v2}}`, refused: "volumeHandle is immutable"},
		{says: "a snapshot does not become the source in place of a volume", change: `spec: {source: {volumeHandle: null, snapshotHandle: s1}}`, refused: "volumeHandle is required once set"},
		{
			says:   "another snapshot does not become the source",
			object: `spec: {source: {volumeHandle: null, snapshotHandle: s1}}`, change: `spec: {source: {snapshotHandle: s2}}`, refused: "snapshotHandle is immutable",
		},
		{
			says:   "a volume does not become the source in place of a snapshot",
			object: `spec: {source: {volumeHandle: null, snapshotHandle: s1}}`,
			change: `spec: {source: {volumeHandle: v1, snapshotHandle: null}}`, refused: "snapshotHandle is required once set",
		},
		{says: "a volume mode that was left open is filled in", change: `spec: {sourceVolumeMode: Block}`},
		{says: "a volume mode stays what it is", object: `spec: {sourceVolumeMode: Block}`, change: `spec: {sourceVolumeMode: Filesystem}`, refused: "sourceVolumeMode is immutable"},
		{says: "a volume mode stays", object: `spec: {sourceVolumeMode: Block}`, change: `spec: {sourceVolumeMode: null}`, refused: "sourceVolumeMode is required once set"},
		{says: "a size is not negative", change: `status: {restoreSize: -1}`, refused: "should be greater than or equal to 0"},
	},
	"VolumeGroupSnapshot": {
		{says: "the claims with a label are snapshotted, with the default class"},
		{says: "a class is named", object: `spec: {volumeGroupSnapshotClassName: fast}`},
		{says: "a class that is named has a name", object: `spec: {volumeGroupSnapshotClassName: ""}`, refused: "volumeGroupSnapshotClassName must not be the empty string when set"},
		{says: "a content that is there is taken", object: `spec: {source: {selector: null, volumeGroupSnapshotContentName: c1}}`},
		{says: "a source is needed", object: `spec: {source: {selector: null}}`, refused: "exactly one of selector and volumeGroupSnapshotContentName must be set"},
		{says: "one source is enough", object: `spec: {source: {volumeGroupSnapshotContentName: c1}}`, refused: "exactly one of selector and volumeGroupSnapshotContentName must be set"},
		{says: "another selector does not become the source", change: `spec: {source: {selector: {matchLabels: {app: web}}}}`, refused: "selector is immutable"},
		{
			says:   "a content does not become the source in place of a selector",
			change: `spec: {source: {selector: null, volumeGroupSnapshotContentName: c1}}`, refused: "selector is required once set",
		},
		{
			says:   "another content does not become the source",
			object: `spec: {source: {selector: null, volumeGroupSnapshotContentName: c1}}`,
			change: `spec: {source: {volumeGroupSnapshotContentName: c2}}`, refused: "volumeGroupSnapshotContentName is immutable",
		},
		{
			says:   "a selector does not become the source in place of a content",
			object: `spec: {source: {selector: null, volumeGroupSnapshotContentName: c1}}`,
			change: `spec: {source: {selector: {matchLabels: {app: db}}, volumeGroupSnapshotContentName: null}}`, refused: "volumeGroupSnapshotContentName is required once set",
		},
		{says: "a content is bound", change: `status: {boundVolumeGroupSnapshotContentName: c1}`},
		{
			says:   "another content is not bound",
			object: `status: {boundVolumeGroupSnapshotContentName: c1}`,
			change: `status: {boundVolumeGroupSnapshotContentName: c2}`, refused: "boundVolumeGroupSnapshotContentName is immutable once set",
		},
	},
	"VolumeGroupSnapshotClass": {
		{says: "a class has a driver and a policy"},
		{says: "the driver stays", change: `driver: b.example.com`, refused: "driver is immutable once set"},
		{says: "the policy stays", change: `deletionPolicy: Retain`, refused: "deletionPolicy is immutable once set"},
		{says: "the parameters stay", change: `parameters: {kind: slow}`, refused: "parameters are immutable once set"},
		{says: "a class is annotated", change: `metadata: {annotations: {note: kept}}`},
	},
	"VolumeGroupSnapshotContent": {
		{says: "volumes are snapshotted"},
		{says: "a group snapshot that is there is taken", object: `spec: {source: {volumeHandles: null, ` + existing + `}}`},
		{says: "the group snapshot's namespace is named", object: `spec: {volumeGroupSnapshotRef: {namespace: null}}`, refused: "both volumeGroupSnapshotRef.name and volumeGroupSnapshotRef.namespace must be set"},
		{says: "the group snapshot is named", object: `spec: {volumeGroupSnapshotRef: {name: null}}`, refused: "both volumeGroupSnapshotRef.name and volumeGroupSnapshotRef.namespace must be set"},
		{says: "one source is enough", object: `spec: {source: {` + existing + `}}`, refused: "exactly one of volumeHandles and groupSnapshotHandles must be set"},
		{says: "a source is needed", object: `spec: {source: {volumeHandles: null}}`, refused: "exactly one of volumeHandles and groupSnapshotHandles must be set"},
		{says: "the class stays", change: `spec: {volumeGroupSnapshotClassName: slow}`, refused: "volumeGroupSnapshotClassName is immutable once set"},
		{says: "the driver stays", change: `spec: {driver: b.example.com}`, refused: "driver is immutable once set"},
		{says: "the policy may change", change: `spec: {deletionPolicy: Retain}`},
		{says: "the group snapshot's name stays", change: `spec: {volumeGroupSnapshotRef: {name: other}}`, refused: "volumeGroupSnapshotRef.name and volumeGroupSnapshotRef.namespace are immutable"},
		{says: "the group snapshot's namespace stays", change: `spec: {volumeGroupSnapshotRef: {namespace: other}}`, refused: "volumeGroupSnapshotRef.name and volumeGroupSnapshotRef.namespace are immutable"},
		{says: "the group snapshot's UID is filled in", change: `spec: {volumeGroupSnapshotRef: {uid: u1}}`},
		{
			says:   "the group snapshot's UID stays what it is",
			object: `spec: {volumeGroupSnapshotRef: {uid: u1}}`, change: `spec: {volumeGroupSnapshotRef: {uid: u2}}`, refused: "volumeGroupSnapshotRef.uid is immutable once set",
		},
		{
			says:   "the group snapshot's UID stays",
			object: `spec: {volumeGroupSnapshotRef: {uid: u1}}`, change: `spec: {volumeGroupSnapshotRef: {uid: null}}`, refused: "volumeGroupSnapshotRef.uid is immutable once set",
		},
		{says: "other volumes do not become the source", change: `spec: {source: {volumeHandles: [v1, v3]}}`, refused: "volumeHandles is immutable"},
		{
			says:   "a group snapshot does not become the source in place of volumes",
			change: `spec: {source: {volumeHandles: null, ` + existing + `}}`, refused: "volumeHandles is required once set",
		},
		{
			says:   "other snapshots do not become the source",
			object: `spec: {source: {volumeHandles: null, ` + existing + `}}`,
			change: `spec: {source: {groupSnapshotHandles: {volumeSnapshotHandles: [s1, s3]}}}`, refused: "groupSnapshotHandles is immutable",
		},
		{
			says:   "volumes do not become the source in place of a group snapshot",
			object: `spec: {source: {volumeHandles: null, ` + existing + `}}`,
			change: `spec: {source: {volumeHandles: [v1, v2], groupSnapshotHandles: null}}`, refused: "groupSnapshotHandles is required once set",
		},
		{
			says:   "the handle of what was made stays what it is",
			object: `status: {volumeGroupSnapshotHandle: g1}`, change: `status: {volumeGroupSnapshotHandle: g2}`, refused: "volumeGroupSnapshotHandle is immutable once set",
		},
		{says: "the handle of what was deleted is removed", object: `status: {volumeGroupSnapshotHandle: g1}`, change: `status: {volumeGroupSnapshotHandle: null}`},
	},
}

// The API server refuses what a controller could make nothing of, and changes of
// what has been acted on, in every version that is for use. The server is the
// test's own: nobody acts on the objects, and they go with it.
func TestTheAPIServerKeepsTheRulesOfTheSnapshotAPI(t *testing.T) {
	t.Parallel()
	c := cluster.NewAPIOnly(t)
	world.CRDs(t, c.Config)
	api, err := client.New(c.Config, client.Options{})
	must(t, err)
	for kind, all := range rules {
		versions := []string{"snapshot.storage.k8s.io/v1"}
		if strings.HasPrefix(kind, "VolumeGroup") {
			versions = []string{"groupsnapshot.storage.k8s.io/v1", "groupsnapshot.storage.k8s.io/v1beta2"}
		}
		for _, version := range versions {
			for i, r := range all {
				t.Run(fmt.Sprintf("%s of %s: %s", kind, version, r.says), func(t *testing.T) {
					o := &unstructured.Unstructured{Object: merged(parsed(t, sound[kind]), parsed(t, r.object))}
					o.SetAPIVersion(version)
					o.SetKind(kind)
					o.SetName(fmt.Sprintf("rule-%s-%d", version[strings.Index(version, "/")+1:], i))
					if kind == "VolumeSnapshot" || kind == "VolumeGroupSnapshot" {
						o.SetNamespace(c.Namespace)
					}
					err := create(t.Context(), api, o)
					if r.change != "" {
						must(t, err)
						err = change(t, api, o, parsed(t, r.change))
					}
					switch {
					case r.refused == "" && err != nil:
						t.Errorf("it is refused: %v", err)
					case r.refused != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), r.refused)):
						t.Errorf("it is not refused with %q: %v", r.refused, err)
					}
				})
			}
		}
	}
}

// create makes an object with its status, which takes two steps.
func create(ctx context.Context, api client.Client, o *unstructured.Unstructured) error {
	status, ok := o.Object["status"]
	if err := api.Create(ctx, o); err != nil || !ok {
		return err
	}
	o.Object["status"] = status
	return api.Status().Update(ctx, o)
}

// change patches an object, or its status if that is what the patch is about.
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

func parsed(t *testing.T, text string) map[string]any {
	t.Helper()
	all := map[string]any{}
	must(t, yaml.Unmarshal([]byte(text), &all))
	return all
}

// merged is RFC 7386: null removes, maps are merged, all else is put in place.
func merged(into, patch map[string]any) map[string]any {
	all := map[string]any{}
	maps.Copy(all, into)
	for key, value := range patch {
		deeper, ok := value.(map[string]any)
		switch below, _ := all[key].(map[string]any); {
		case value == nil:
			delete(all, key)
		case ok:
			all[key] = merged(below, deeper)
		default:
			all[key] = value
		}
	}
	return all
}
