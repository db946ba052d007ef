package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// restorers are two users of the namespace %[1]s: both may do everything with pods and
// workloads, and one may restore from the Checkpoint c-1, there and in %[2]s.
const restorers = `
apiVersion: v1
kind: Namespace
metadata: {name: %[2]s}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: pods, namespace: %[1]s}
rules: [{apiGroups: ["", apps, batch], resources: ["*"], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: pods, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: pods}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: anna}, {apiGroup: rbac.authorization.k8s.io, kind: User, name: bert}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: restore, namespace: %[1]s}
rules: [{apiGroups: [checkpoint.example.com], resources: [checkpoints], resourceNames: [c-1], verbs: [restore]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: restore, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: restore}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: anna}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: restore, namespace: %[2]s}
rules: [{apiGroups: [checkpoint.example.com], resources: [checkpoints], resourceNames: [c-2], verbs: [restore]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: restore, namespace: %[2]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: restore}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: anna}]
`

const (
	annotatedPod        = `{apiVersion: v1, kind: Pod, metadata: {name: %s, annotations: {%s}}, spec: {automountServiceAccountToken: false, containers: [{name: main, image: x}]}}`
	annotatedDeployment = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: %[1]s}, spec: {replicas: 1, selector: {matchLabels: {a: %[1]s}}, template: {metadata: {labels: {a: %[1]s}, annotations: {%[2]s}}, spec: {containers: [{name: main, image: x}]}}}}`
	annotatedCronJob    = `{apiVersion: batch/v1, kind: CronJob, metadata: {name: %s}, spec: {schedule: "0 0 1 1 *", jobTemplate: {spec: {template: {metadata: {annotations: {%s}}, spec: {restartPolicy: Never, containers: [{name: main, image: x}]}}}}}}`
	annotatedTemplate   = `{apiVersion: v1, kind: PodTemplate, metadata: {name: %s}, template: {metadata: {annotations: {%s}}, spec: {containers: [{name: main, image: x}]}}}`
)

// Who asks for a restore needs the verb restore on the Checkpoint, on pods and on what makes
// pods; and nobody but the agent says what became of it.
func TestRestoresNeedThePermission(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Own())
	w := localWorld{&world.World{Cluster: c}}
	forEachDocument(t, filepath.Join("..", "..", "deploy", "checkpoint-operator.yaml"), func(document []byte) {
		if strings.Contains(string(document), "ValidatingAdmissionPolicy") {
			w.applyManifest(t, string(document))
		}
	})
	other := c.Namespace + "-other"
	w.applyManifest(t, fmt.Sprintf(restorers, c.Namespace, other))
	const from = "checkpoint.example.com/restore-from: "
	// The policies take effect a moment after they are created.
	world.Eventually(t, func(ctx context.Context) error {
		out, err := w.tryAs(ctx, t, "bert", fmt.Sprintf(annotatedPod, "early", from+"c-1"), "create", "--dry-run=server")
		if err == nil || !strings.Contains(out, "verb restore") {
			return fmt.Errorf("the policies are not in effect: %s", out)
		}
		return nil
	})
	tests := map[string]struct {
		user, object, says string
	}{
		"a pod without a request":                   {"bert", fmt.Sprintf(annotatedPod, "a", ""), ""},
		"a pod with the permission":                 {"anna", fmt.Sprintf(annotatedPod, "b", from+"c-1"), ""},
		"a pod without the permission":              {"bert", fmt.Sprintf(annotatedPod, "c", from+"c-1"), "bert does not have"},
		"another Checkpoint":                        {"anna", fmt.Sprintf(annotatedPod, "d", from+"c-2"), "anna does not have"},
		"a Checkpoint of another namespace":         {"anna", fmt.Sprintf(annotatedPod, "e", from+other+"/c-2"), ""},
		"another Checkpoint of another namespace":   {"anna", fmt.Sprintf(annotatedPod, "f", from+other+"/c-1"), "anna does not have"},
		"an outcome":                                {"anna", fmt.Sprintf(annotatedPod, "g", "checkpoint.example.com/observed-restore-from: c-1"), "only the checkpoint agent"},
		"a Deployment without a request":            {"bert", fmt.Sprintf(annotatedDeployment, "h", ""), ""},
		"a Deployment with the permission":          {"anna", fmt.Sprintf(annotatedDeployment, "i", from+"c-1"), ""},
		"a Deployment without the permission":       {"bert", fmt.Sprintf(annotatedDeployment, "j", from+"c-1"), "bert does not have"},
		"a CronJob without the permission":          {"bert", fmt.Sprintf(annotatedCronJob, "k", from+"c-1"), "bert does not have"},
		"a CronJob with the permission":             {"anna", fmt.Sprintf(annotatedCronJob, "l", from+"c-1"), ""},
		"a template of pods without the permission": {"bert", fmt.Sprintf(annotatedTemplate, "m", from+"c-1"), "bert does not have"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, err := w.tryAs(t.Context(), t, tt.user, tt.object, "create")
			if (err == nil) != (tt.says == "") || !strings.Contains(out, tt.says) {
				t.Errorf("got %v %s, want %q", err, out, tt.says)
			}
		})
	}
	t.Run("a pod that exists", func(t *testing.T) {
		for _, step := range []struct{ user, annotations, says string }{
			{"bert", from + "c-1", "bert does not have"},
			{"anna", from + "c-1", ""},
			{"bert", from + "c-1, x: z", ""}, // What is there already needs no permission.
			{"bert", from + "c-2", "bert does not have"},
			{"bert", "", ""},
		} {
			out, err := w.tryAs(t.Context(), t, step.user, fmt.Sprintf(annotatedPod, "a", step.annotations), "apply")
			if (err == nil) != (step.says == "") || !strings.Contains(out, step.says) {
				t.Errorf("%s sets {%s}: got %v %s, want %q", step.user, step.annotations, err, out, step.says)
			}
		}
	})
	t.Run("the pod of a Deployment", func(t *testing.T) {
		world.Eventually(t, func(ctx context.Context) error {
			out, err := w.tryKubectl(ctx, "-n", c.Namespace, "get", "pods", "-l", "a=i", "-o", "jsonpath={.items[*].metadata.annotations}")
			if err == nil && !strings.Contains(out, "restore-from") {
				err = fmt.Errorf("the Deployment has no pod with the annotation: %s", out)
			}
			return err
		})
	})
}

// tryAs has a user create or apply an object in the test's namespace.
func (w localWorld) tryAs(ctx context.Context, t *testing.T, user, object string, command ...string) (string, error) {
	t.Helper()
	manifest := filepath.Join(t.TempDir(), "object.yaml")
	must(t, os.WriteFile(manifest, []byte(object), 0o600))
	return w.tryKubectl(ctx, append(command, "-f", manifest, "-n", w.Namespace, "--as="+user)...)
}

func (w localWorld) applyManifest(t *testing.T, text string) {
	t.Helper()
	manifest := filepath.Join(t.TempDir(), "manifest.yaml")
	must(t, os.WriteFile(manifest, []byte(text), 0o600))
	w.kubectl(t, "apply", "-f", manifest)
}
