package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// validCheckpoints has a valid object of each kind, which rows of checkpointRules change.
var validCheckpoints = map[string]string{
	"Checkpoint": `{spec: {target: {podName: web-0, containerName: main}, policyRef: daily, encryption: {secretRef: {name: key}},
		storage: {backend: s3, s3: {endpoint: s3.example.com, bucket: checkpoints}}}}`,
	"CheckpointPolicy": `{spec: {storage: {backend: local}, retention: {maxCount: 5, maxAge: 72h}}}`,
}

const (
	otherStorage = "spec.storage cannot be changed: the data would be lost; create another Checkpoint"
	otherKey     = "spec.encryption cannot be changed: the data are encrypted already; create another Checkpoint"
	badPath      = "path is absolute, without . and .. and without names that begin with a dot"
	badEndpoint  = "endpoint is a host with an optional port, such as s3.example.com: credentials belong into a Secret (credentialsSecretRef)"
	badBucket    = "bucket has 3 to 63 lower-case letters, digits, dots and dashes; a path in the bucket belongs into prefix"
	badPrefix    = "prefix has letters, digits, dots, dashes and underscores between single slashes, such as team/my-app/, and does not begin with a slash"
	badFrozen    = "maxFrozenTime must be between 100ms and 1h"
	notDuration  = "should match"
	claim        = `accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}`
)

// Rules are tried with one request each, which stores nothing: of a new object, or of a
// change of an existing one.
var checkpointRules = map[string][]validationRule{
	"Checkpoint": {
		{name: "a container is checkpointed into a bucket"},
		{name: "a pod is enough with a policy", object: `spec: {target: {containerName: null}, storage: null, encryption: null}`},
		{name: "a storage is enough without a policy", object: `spec: {policyRef: null}`},
		{name: "neither storage nor policy is no place", object: `spec: {policyRef: null, storage: null}`, rejected: "set spec.storage with a backend, or spec.policyRef to take the storage of a CheckpointPolicy"},
		{name: "a policy has a name", object: `spec: {policyRef: ""}`, rejected: "should be at least 1 chars long"},
		{name: "a pod has a name", object: `spec: {target: {podName: null}}`, rejected: "spec.target.podName: Required value"},
		{name: "all containers are a target", object: `spec: {target: {containerName: "*"}}`},
		{name: "another namespace is a target", object: `spec: {target: {namespace: team}}`},

		{name: "an unknown backend is refused", object: `spec: {storage: {backend: ftp, s3: null}}`, rejected: `Unsupported value: "ftp": supported values: "pvc", "s3", "local"`},
		{name: "a storage has a backend", object: `spec: {storage: {backend: null, s3: null}}`, rejected: "spec.storage.backend: Required value"},
		{name: "the backend local needs nothing else", object: `spec: {storage: {backend: local, s3: null}}`},
		{name: "the backend local has a path", object: `spec: {storage: {backend: local, s3: null, local: {path: /var/lib/holdfast/checkpoints/a}}}`},
		{name: "a path is absolute", object: `spec: {storage: {backend: local, s3: null, local: {path: a/b}}}`, rejected: badPath},
		{name: "a path does not lead out", object: `spec: {storage: {backend: local, s3: null, local: {path: /var/../etc}}}`, rejected: badPath},
		{name: "a path has no empty names", object: `spec: {storage: {backend: local, s3: null, local: {path: /var//lib}}}`, rejected: badPath},
		{name: "two backends are refused", object: `spec: {storage: {local: {path: /a}}}`, rejected: "storage.local is set, but storage.backend is another one: set backend to local, or remove the section local"},
		{name: "a bucket of another backend is refused", object: `spec: {storage: {backend: local}}`, rejected: "storage.s3 is set, but storage.backend is another one: set backend to s3, or remove the section s3"},
		{name: "a claim of another backend is refused", object: `spec: {storage: {pvc: {claimName: data}}}`, rejected: "storage.pvc is set, but storage.backend is another one: set backend to pvc, or remove the section pvc"},
		{name: "a claim template of another backend is refused", object: `spec: {storage: {pvcTemplate: {` + claim + `}}}`, rejected: "storage.pvcTemplate is set, but storage.backend is another one: set backend to pvc, or remove the section pvcTemplate"},

		{name: "the backend s3 needs its section", object: `spec: {storage: {s3: null}}`, rejected: "storage.backend s3 needs the section storage.s3 with endpoint and bucket"},
		{name: "the backend s3 needs a bucket", object: `spec: {storage: {s3: {bucket: null}}}`, rejected: "spec.storage.s3.bucket: Required value"},
		{name: "the backend s3 needs an endpoint", object: `spec: {storage: {s3: {endpoint: null}}}`, rejected: "spec.storage.s3.endpoint: Required value"},
		{name: "an endpoint has a scheme and a port", object: `spec: {storage: {s3: {endpoint: "https://s3.example.com:9000"}}}`},
		{name: "an endpoint has no password", object: `spec: {storage: {s3: {endpoint: "https://user:password@s3.example.com"}}}`, rejected: badEndpoint},
		{name: "an endpoint has no query", object: `spec: {storage: {s3: {endpoint: "s3.example.com?a=b"}}}`, rejected: badEndpoint},
		{name: "a bucket has no upper-case letters", object: `spec: {storage: {s3: {bucket: Checkpoints}}}`, rejected: badBucket},
		{name: "a bucket has no path", object: `spec: {storage: {s3: {bucket: a/checkpoints}}}`, rejected: badBucket},
		{name: "a prefix is a path", object: `spec: {storage: {s3: {prefix: team/my-app/}}}`},
		{name: "a prefix does not begin with a slash", object: `spec: {storage: {s3: {prefix: /team}}}`, rejected: badPrefix},
		{name: "a prefix does not lead out", object: `spec: {storage: {s3: {prefix: team/../other}}}`, rejected: badPrefix},
		{name: "an addressing is known", object: `spec: {storage: {s3: {addressing: Auto}}}`},
		{name: "an unknown addressing is refused", object: `spec: {storage: {s3: {addressing: Host}}}`, rejected: `supported values: "Auto", "Path", "Virtual"`},
		{name: "certificates are in PEM", object: `spec: {storage: {s3: {caBundle: MIIB}}}`, rejected: "caBundle has certificates in PEM: they begin with -----BEGIN CERTIFICATE-----"},

		{name: "an existing claim is a place", object: `spec: {storage: {backend: pvc, s3: null, pvc: {claimName: data}}}`},
		{name: "a claim template is a place", object: `spec: {storage: {backend: pvc, s3: null, pvcTemplate: {` + claim + `}}}`},
		{name: "the backend pvc needs a claim", object: `spec: {storage: {backend: pvc, s3: null}}`, rejected: "storage.backend pvc needs storage.pvc with a claimName, or storage.pvcTemplate with accessModes and resources"},
		{name: "one claim is enough", object: `spec: {storage: {backend: pvc, s3: null, pvc: {claimName: data}, pvcTemplate: {` + claim + `}}}`, rejected: "set either storage.pvc, an existing claim, or storage.pvcTemplate, a claim to be created"},
		{name: "a claim template has a size", object: `spec: {storage: {backend: pvc, s3: null, pvcTemplate: {accessModes: [ReadWriteOnce], resources: {}}}}`, rejected: "set resources.requests.storage, the size of the claim"},

		{name: "TCP connections are closed", object: `spec: {establishedTCP: Close}`},
		{name: "TCP connections are not kept", object: `spec: {establishedTCP: Keep}`, rejected: `supported values: "Refuse", "Close"`},
		{name: "a container is frozen for a minute", object: `spec: {maxFrozenTime: 1m}`},
		{name: "a container is frozen for some time", object: `spec: {maxFrozenTime: 1ms}`, rejected: badFrozen},
		{name: "a container is not frozen for ever", object: `spec: {maxFrozenTime: 2h}`, rejected: badFrozen},
		{name: "a time has a unit", object: `spec: {maxFrozenTime: "30"}`, rejected: notDuration},
		{name: "volumes of some size are saved", object: `spec: {ephemeralVolumes: {sizeLimit: 2Gi}}`},
		{name: "volumes are left out", object: `spec: {ephemeralVolumes: {sizeLimit: 0}}`},
		{name: "a size is not negative", object: `spec: {ephemeralVolumes: {sizeLimit: -1Gi}}`, rejected: "ephemeralVolumes.sizeLimit cannot be negative"},
		{name: "nor is it as a number", object: `spec: {ephemeralVolumes: {sizeLimit: -1}}`, rejected: "ephemeralVolumes.sizeLimit cannot be negative"},
		{name: "a time is not negative", object: `spec: {maxFrozenTime: -30s}`, rejected: notDuration},

		{name: "another pod does not become the target", change: `spec: {target: {podName: web-1}}`, rejected: "spec.target cannot be changed: a Checkpoint takes place once; create another Checkpoint"},
		{name: "another container does not become the target", change: `spec: {target: {containerName: log}}`, rejected: "spec.target cannot be changed"},
		{name: "another bucket does not become the storage", change: `spec: {storage: {s3: {bucket: other}}}`, rejected: otherStorage},
		{name: "the storage stays", change: `spec: {storage: null}`, rejected: otherStorage},
		{name: "another key does not encrypt", change: `spec: {encryption: {secretRef: {name: other}}}`, rejected: otherKey},
		{name: "the encryption stays", change: `spec: {encryption: null}`, rejected: otherKey},
		{name: "another policy applies", change: `spec: {policyRef: weekly}`},
		{name: "a Checkpoint is labelled", change: `metadata: {labels: {team: a}}`},
	},
	"CheckpointPolicy": {
		{name: "a policy has storage and retention"},
		{name: "a policy may have nothing", object: `spec: {storage: null, retention: null}`},
		{name: "a storage is as that of a Checkpoint", object: `spec: {storage: {backend: s3}}`, rejected: "storage.backend s3 needs the section storage.s3 with endpoint and bucket"},
		{name: "a number is enough", object: `spec: {retention: {maxAge: null}}`},
		{name: "an age is enough", object: `spec: {retention: {maxCount: null}}`},
		{name: "a retention has a limit", object: `spec: {retention: {maxCount: null, maxAge: null}}`, rejected: "set maxCount, maxAge or both; without retention all Checkpoints are kept"},
		{name: "one is kept at least", object: `spec: {retention: {maxCount: 0}}`, rejected: "spec.retention.maxCount in body should be greater than or equal to 1"},
		{name: "a number is not negative", object: `spec: {retention: {maxCount: -1}}`, rejected: "spec.retention.maxCount in body should be greater than or equal to 1"},
		{name: "an age is not negative", object: `spec: {retention: {maxAge: -72h}}`, rejected: notDuration},
		{name: "an age has no days", object: `spec: {retention: {maxAge: 3d}}`, rejected: notDuration},
		{name: "an age is a minute at least", object: `spec: {retention: {maxAge: 59s}}`, rejected: "maxAge must be at least 1m"},
		{name: "the last one may go", object: `spec: {retention: {minCount: 0}}`},
		{name: "what is kept in any case is not negative", object: `spec: {retention: {minCount: -1}}`, rejected: "spec.retention.minCount in body should be greater than or equal to 0"},
		{name: "all of a policy may change", change: `spec: {storage: {backend: pvc, pvc: {claimName: data}}, retention: {maxCount: 1, maxAge: null}}`},
		{name: "a policy does not become invalid", change: `spec: {retention: {maxCount: null, maxAge: null}}`, rejected: "set maxCount, maxAge or both"},
	},
}

// testValidation: the API server refuses what makes no sense, and says what to write instead.
func (w *checkpointAPI) testValidation(t *testing.T) {
	for kind, rules := range checkpointRules {
		existing := w.newObject(t, kind, "existing", validCheckpoints[kind], "")
		must(t, w.api.Create(t.Context(), existing))
		for _, r := range rules {
			t.Run(kind+": "+r.name, func(t *testing.T) {
				var err error
				if r.change == "" {
					err = w.api.Create(t.Context(), w.newObject(t, kind, "new", validCheckpoints[kind], r.object), client.DryRunAll)
				} else {
					text, marshalErr := json.Marshal(parseYAML(t, r.change))
					must(t, marshalErr)
					err = w.api.Patch(t.Context(), existing.DeepCopy(), client.RawPatch(types.MergePatchType, text), client.DryRunAll)
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

// newObject returns an object of the checkpoint API, which a merge patch changes.
func (w *checkpointAPI) newObject(t *testing.T, kind, name, text, patch string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{Object: mergeObjects(parseYAML(t, text), parseYAML(t, patch))}
	o.SetAPIVersion("checkpoint.example.com/v1alpha1")
	o.SetKind(kind)
	o.SetName(name)
	if kind == "Checkpoint" {
		o.SetNamespace(w.Namespace)
	}
	return o
}
