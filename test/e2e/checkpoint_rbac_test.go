package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// A permission is a verb on a resource of an API group, such as "patch checkpoints/status
// in checkpoint.example.com".
type permission struct{ verb, resource, group string }

func (p permission) String() string { return p.verb + " " + p.resource + " in " + `"` + p.group + `"` }

// checkPermissions compares the permissions of an account in deploy/checkpoint-operator.yaml
// with the requests that it has made since the cluster was started: all that it has, and
// nothing else, was used. So none can be taken away. The exceptions are not used here.
func (w *checkpointWorld) checkPermissions(t *testing.T, account string, exceptions ...permission) {
	t.Helper()
	granted := permissionsOf(t, account)
	used := w.permissionsUsed(t, account)
	if len(granted) == 0 || len(used) == 0 {
		t.Fatalf("account %s has %d permissions and used %d", account, len(granted), len(used))
	}
	for _, p := range exceptions {
		if !granted[p] {
			t.Errorf("account %s is said to have, and has not: %s", account, p)
		}
		used[p] = true
	}
	for p := range granted {
		// Without streaming lists an API server is asked for a list before a watch.
		isFallback := p.verb == "list" && used[permission{"watch", p.resource, p.group}]
		if !used[p] && !isFallback {
			t.Errorf("account %s may %s, but nothing here needs it", account, p)
		}
	}
}

// permissionsOf returns the permissions that the manifest grants an account.
func permissionsOf(t *testing.T, account string) map[permission]bool {
	t.Helper()
	rules := map[string][]rbacv1.PolicyRule{} // by kind and name of the role
	var roles []string
	forEachDocument(t, filepath.Join("..", "..", "deploy", "checkpoint-operator.yaml"), func(document []byte) {
		var role rbacv1.ClusterRole // A Role has the same fields.
		var binding rbacv1.ClusterRoleBinding
		must(t, yaml.Unmarshal(document, &role))
		switch {
		case strings.HasSuffix(role.Kind, "Role"):
			rules[role.Kind+"/"+role.Name] = role.Rules
		case strings.HasSuffix(role.Kind, "RoleBinding"):
			must(t, yaml.Unmarshal(document, &binding))
			if slices.ContainsFunc(binding.Subjects, func(s rbacv1.Subject) bool { return s.Name == account }) {
				roles = append(roles, binding.RoleRef.Kind+"/"+binding.RoleRef.Name)
			}
		}
	})
	granted := map[permission]bool{}
	for _, role := range roles {
		for _, rule := range rules[role] {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						granted[permission{verb, resource, group}] = true
					}
				}
			}
		}
	}
	return granted
}

func forEachDocument(t *testing.T, path string, each func(document []byte)) {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	for documents := yaml.NewYAMLOrJSONDecoder(file, 4096); ; {
		var document json.RawMessage
		err := documents.Decode(&document)
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		each(document)
	}
}

// An auditEvent has what is needed of an audit.k8s.io/v1 Event.
type auditEvent struct {
	Verb, RequestURI string
	User             struct{ Username string }
	ObjectRef        *struct{ Resource, Subresource, APIGroup string }
	ResponseStatus   struct{ Code int }
}

// permissionsUsed returns what an account needed for its requests, from the API server's
// audit log. What was always forbidden is an error; the API server takes a moment to see
// new roles.
func (w *checkpointWorld) permissionsUsed(t *testing.T, account string) map[permission]bool {
	t.Helper()
	file, err := os.Open(filepath.Join(filepath.Dir(w.Kubeconfig), "logs", "audit.log"))
	must(t, err)
	defer file.Close()
	used, forbidden := map[permission]bool{}, map[permission]string{}
	for events := json.NewDecoder(file); ; {
		var e auditEvent
		err := events.Decode(&e)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // The last line may be being written.
			break
		}
		must(t, err)
		if e.User.Username != "system:serviceaccount:"+checkpointNamespace+":"+account || e.ObjectRef == nil {
			continue
		}
		p := permission{e.Verb, e.ObjectRef.Resource, e.ObjectRef.APIGroup}
		if e.ObjectRef.Subresource != "" {
			p.resource += "/" + e.ObjectRef.Subresource
		}
		if e.ResponseStatus.Code == http.StatusForbidden {
			forbidden[p] = e.RequestURI
		} else {
			used[p] = true
		}
	}
	for p, request := range forbidden {
		if !used[p] {
			t.Errorf("account %s was not permitted to %s: %s", account, p, request)
		}
	}
	return used
}
