package e2e

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/test/world"
)

// exampleAttacherRules returns the rules of all roles in the manifests of the example
// csi-attacher.
func exampleAttacherRules(t *testing.T) []rbacv1.PolicyRule {
	t.Helper()
	var all []rbacv1.PolicyRule
	for _, name := range []string{"attacher.yaml", "rbac.yaml"} {
		file, err := os.Open(filepath.Join("..", "..", "examples", "csi-attacher", name))
		must(t, err)
		defer file.Close()
		documents := yaml.NewYAMLOrJSONDecoder(file, 4096)
		for {
			var role rbacv1.ClusterRole // A Role has the same fields.
			err := documents.Decode(&role)
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			if strings.HasSuffix(role.Kind, "Role") {
				all = append(all, role.Rules...)
			}
		}
	}
	return all
}

// withoutVerbs removes verbs on a resource from rules, and rules without verbs.
func withoutVerbs(all []rbacv1.PolicyRule, verbs, resource string) []rbacv1.PolicyRule {
	var left []rbacv1.PolicyRule
	for _, rule := range all {
		if slices.Contains(rule.Resources, resource) {
			rule.Verbs = slices.DeleteFunc(slices.Clone(rule.Verbs), func(v string) bool { return slices.Contains(strings.Fields(verbs), v) })
		}
		if len(rule.Verbs) > 0 {
			left = append(left, rule)
		}
	}
	return left
}

// impersonate grants permissions to a user, and returns a kubeconfig of that user.
func impersonate(t *testing.T, w *world.World, user string, rules []rbacv1.PolicyRule) string {
	t.Helper()
	user = w.Namespace + "-" + user
	roles := w.Client.RbacV1()
	_, err := roles.ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: rules}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		must(t, roles.ClusterRoles().Delete(context.Background(), user, metav1.DeleteOptions{}))
	})
	_, err = roles.ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		must(t, roles.ClusterRoleBindings().Delete(context.Background(), user, metav1.DeleteOptions{}))
	})
	config, err := clientcmd.LoadFromFile(w.Kubeconfig)
	must(t, err)
	for _, one := range config.AuthInfos {
		one.Impersonate = user
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, clientcmd.WriteToFile(*config, file))
	return file
}

// The permissions of the example are sufficient, and for each missing one the log
// names it.
func TestMissingAttacherPermissionIsLogged(t *testing.T) {
	t.Parallel()
	if len(exampleAttacherRules(t)) < 7 {
		t.Fatalf("the example's manifests have %d rules", len(exampleAttacherRules(t)))
	}
	for name, lacks := range map[string][2]string{ // verbs, of which the first is logged, and resource
		"nothing":                      {},
		"to read volumes":              {"list watch", "persistentvolumes"},
		"to add finalizers to volumes": {"patch", "persistentvolumes"},
		"to read node ids":             {"list watch", "csinodes"},
		"to read VolumeAttachments":    {"list watch", "volumeattachments"},
		"to record operations":         {"patch", "volumeattachments"},
		"to write the status":          {"patch", "volumeattachments/status"},
		"to emit events":               {"create", "events"},
		"to become leader":             {"update", "leases"},
		"to watch the Lease":           {"watch", "leases"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, attachable)
			rights := exampleAttacherRules(t)
			if lacks[0] != "" {
				rights = withoutVerbs(rights, lacks[0], lacks[1])
			}
			p := w.StartAttacher(t, append(longLeases(), "--kubeconfig="+impersonate(t, w, "attacher", rights), "--leader-election-namespace="+w.Namespace, "--v=2")...)
			node, volume := w.CreateCSINode(t, "node", "id-1"), w.CreatePV(t, "data", nil)
			attachment := w.CreateAttachment(t, volume.Name, node)
			if lacks[0] == "" {
				w.WaitAttached(t, attachment)
				return
			}
			if lacks[1] == "leases" && lacks[0] == "watch" { // Only a replica that has seen another leader watches.
				w.WaitAttached(t, attachment)
				setLeaseHolder(t, w, "external-attacher-leader-"+csi.SafeName(w.Name), "another")
				p = w.StartAttacher(t, append(longLeases(), "--kubeconfig="+impersonate(t, w, "second", rights), "--leader-election-namespace="+w.Namespace, "--v=2")...)
			}
			world.Eventually(t, func(context.Context) error {
				verb, _, _ := strings.Cut(lacks[0], " ")
				if want := `cannot ` + verb + ` resource "` + lacks[1] + `"`; !strings.Contains(strings.ReplaceAll(p.Log(), `\`, ""), want) {
					return errors.New("the log lacks: " + want)
				}
				return nil
			})
		})
	}
}

// A replica that cannot read what it needs must not become leader, so that another one
// can.
func TestReplicaWithoutPermissionsDoesNotLead(t *testing.T) {
	t.Parallel()
	for _, resource := range []string{"persistentvolumes", "csinodes"} {
		t.Run(resource, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, attachable)
			node, volume := w.CreateCSINode(t, "node", "id-1"), w.CreatePV(t, "data", nil)
			attachment := w.CreateAttachment(t, volume.Name, node)
			flags := append(longLeases(), "--leader-election-namespace="+w.Namespace)
			blind := w.StartAttacher(t, append(flags, "--kubeconfig="+impersonate(t, w, "blind", withoutVerbs(exampleAttacherRules(t), "list watch", resource)))...)
			waitForLog(t, blind, "cannot list resource")
			w.StartAttacher(t, flags...)
			w.WaitAttached(t, attachment)
		})
	}
}
