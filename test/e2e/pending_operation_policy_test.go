package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// leaseWriters are two users of the namespace %s who may write its Leases: one is a
// provisioner.
const leaseWriters = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: leases, namespace: %[1]s}
rules: [{apiGroups: [coordination.k8s.io], resources: [leases], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: leases, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: leases}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: provisioner}, {apiGroup: rbac.authorization.k8s.io, kind: User, name: other}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: pending, namespace: %[1]s}
rules: [{apiGroups: [provision.holdfast.io], resources: [pendingoperations], verbs: [write]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: pending, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: pending}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: provisioner}]
`

const labelledLease = `{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: %s, labels: {%s}}, spec: {holderIdentity: %s}}`

// The manifests reserve the Leases of pending operations for the provisioner.
func TestOnlyTheProvisionerWritesPendingOperations(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Own())
	w := localWorld{&world.World{Cluster: c}}
	drivers := map[string]string{
		filepath.Join("examples", "csi-provisioner", "rbac.yaml"):              "local.holdfast.io",
		filepath.Join("driver", "local", "deploy", "local-driver.yaml"):        "local.holdfast.io",
		filepath.Join("driver", "local", "deploy", "local-driver-attach.yaml"): "attach.local.holdfast.io",
	}
	for manifest := range drivers {
		policies := 0
		forEachDocument(t, filepath.Join("..", "..", manifest), func(document []byte) {
			if strings.Contains(string(document), "ValidatingAdmissionPolicy") {
				policies++
				w.applyManifest(t, string(document))
			}
		})
		if policies != 2 {
			t.Errorf("%s has %d objects of the policy, want it and its binding", manifest, policies)
		}
	}
	w.applyManifest(t, fmt.Sprintf(leaseWriters, c.Namespace))
	const label = "provision.holdfast.io/driver: "
	const denied = "does not have"
	for _, driver := range drivers { // The policies take effect a moment after they are created.
		world.Eventually(t, func(ctx context.Context) error {
			out, err := w.tryAs(ctx, t, "other", fmt.Sprintf(labelledLease, "early", label+driver, "x"), "create", "--dry-run=server")
			if err == nil || !strings.Contains(out, denied) {
				return fmt.Errorf("the policy of driver %s is not in effect: %s", driver, out)
			}
			return nil
		})
	}
	for _, step := range []struct{ what, user, lease, labels, holder, says string }{
		{"another user may write other Leases", "other", "leader", "", "a", ""},
		{"and cannot make one of them an operation", "other", "leader", label + "local.holdfast.io", "a", denied},
		{"nor one as an earlier version wrote it", "other", "forged", label + "local-holdfast-io", "a", denied},
		{"nor one of the other driver", "other", "forged", label + "attach.local.holdfast.io", "a", denied},
		{"but one of a driver without a policy", "other", "unknown", label + "csi.example.com", "a", ""},
		{"the provisioner may", "provisioner", "provision-1", label + "local.holdfast.io", "a", ""},
		{"another user cannot change that", "other", "provision-1", label + "local.holdfast.io", "b", denied},
		{"nor take the label away", "other", "provision-1", "", "a", denied},
		{"the provisioner may change it", "provisioner", "provision-1", label + "local.holdfast.io", "b", ""},
	} {
		out, err := w.tryAs(t.Context(), t, step.user, fmt.Sprintf(labelledLease, step.lease, step.labels, step.holder), "apply", "--server-side", "--force-conflicts", "--field-manager=test")
		if (err == nil) != (step.says == "") || !strings.Contains(out, step.says) {
			t.Errorf("%s: got %v %s, want %q", step.what, err, out, step.says)
		}
	}
	// Deletions are not restricted: administrators delete what can never be completed.
	w.kubectl(t, "-n", c.Namespace, "delete", "lease", "provision-1", "--as=other")
}
