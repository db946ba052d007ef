package secretref

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAll(t *testing.T) {
	const p = "csi.storage.k8s.io/"
	ref := func(name, namespace string) *corev1.SecretReference {
		return &corev1.SecretReference{Name: name, Namespace: namespace}
	}
	tests := map[string]struct {
		class map[string]string
		use   Use
		want  *corev1.SecretReference
		err   string
	}{
		"none":                            {nil, Provision, nil, ""},
		"one of its own":                  {map[string]string{p + "provisioner-secret-name": "s", p + "provisioner-secret-namespace": "n"}, Provision, ref("s", "n"), ""},
		"one for another use is not ours": {map[string]string{p + "provisioner-secret-name": "s", p + "provisioner-secret-namespace": "n"}, NodeStage, nil, ""},
		"the default for all":             {map[string]string{p + "secret-name": "s", p + "secret-namespace": "n"}, NodeExpand, ref("s", "n"), ""},
		"its own comes before the default": {map[string]string{
			p + "secret-name": "s", p + "secret-namespace": "n", p + "node-publish-secret-name": "own", p + "node-publish-secret-namespace": "n",
		}, NodePublish, ref("own", "n"), ""},
		"the deprecated keys": {map[string]string{"csiControllerPublishSecretName": "s", "csiControllerPublishSecretNamespace": "n"}, ControllerPublish, ref("s", "n"), ""},
		"every token": {map[string]string{
			p + "provisioner-secret-name":      "${pvc.name}.${pvc.namespace}.${pv.name}.${pvc.annotations['team/key']}",
			p + "provisioner-secret-namespace": "${pvc.namespace}",
		}, Provision, ref("data.team.pv-1.gold", "team"), ""},
		"a name without a namespace": {map[string]string{p + "provisioner-secret-name": "s"}, Provision, nil, "both"},
		"an empty name":              {map[string]string{p + "provisioner-secret-name": "", p + "provisioner-secret-namespace": "n"}, Provision, nil, "empty"},
		"new and deprecated keys at once": {map[string]string{
			p + "node-stage-secret-name": "s", p + "node-stage-secret-namespace": "n", "csiNodeStageSecretName": "s",
		}, NodeStage, nil, "deprecated"},
		"an unknown token": {map[string]string{p + "secret-name": "${pod.name}", p + "secret-namespace": "n"}, Default, nil, "${pod.name}"},
		"an annotation that the claim lacks": {map[string]string{
			p + "node-publish-secret-name": "${pvc.annotations['none']}-${pvc.annotations['team/key']}", p + "node-publish-secret-namespace": "n",
		}, Default, nil, `parameter csi.storage.k8s.io/node-publish-secret-name: "${pvc.annotations['none']}-${pvc.annotations['team/key']}" refers to annotations that claim team/data does not have: "none"`},
		"an annotation choosing the namespace":    {map[string]string{p + "secret-name": "s", p + "secret-namespace": "${pvc.annotations['team/key']}"}, Default, nil, "parameter csi.storage.k8s.io/secret-namespace: \"${pvc.annotations['team/key']}\" has unknown tokens"},
		"the claim's name choosing the namespace": {map[string]string{p + "secret-name": "s", p + "secret-namespace": "${pvc.name}"}, Default, nil, "${pvc.name}"},
		"a name that no secret can have":          {map[string]string{p + "secret-name": "Not_A_Name", p + "secret-namespace": "n"}, Default, nil, "Not_A_Name"},
		"a namespace that none can be":            {map[string]string{p + "secret-name": "s", p + "secret-namespace": "a.b"}, Default, nil, "a.b"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
				Name: "data", Namespace: "team", Annotations: map[string]string{"team/key": "gold"},
			}}
			refs, err := ResolveAll(tt.class, c, "pv-1")
			if (err != nil) != (tt.err != "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got error %v, want one that says %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, refs[tt.use]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Secrets for other uses do not keep a volume from being deleted.
func TestResolveForGone(t *testing.T) {
	const p = "csi.storage.k8s.io/"
	unrelated := map[string]string{p + "node-publish-secret-name": "${pvc.annotations['none']}", p + "node-publish-secret-namespace": "n"}
	with := func(more map[string]string) map[string]string {
		all := maps.Clone(unrelated)
		maps.Copy(all, more)
		return all
	}
	tests := map[string]struct {
		class map[string]string
		want  *corev1.SecretReference
		err   string
	}{
		"no secret for the use": {unrelated, nil, ""},
		"a secret for the use": {
			with(map[string]string{p + "provisioner-secret-name": "${pvc.name}-${pv.name}", p + "provisioner-secret-namespace": "${pvc.namespace}"}),
			&corev1.SecretReference{Name: "data-pv-1", Namespace: "team"}, ""},
		"the default": {with(map[string]string{p + "secret-name": "s", p + "secret-namespace": "n"}), &corev1.SecretReference{Name: "s", Namespace: "n"}, ""},
		"its own comes before a default that cannot be resolved": {
			with(map[string]string{
				p + "provisioner-secret-name": "s", p + "provisioner-secret-namespace": "n",
				p + "secret-name": "${pvc.annotations['none']}", p + "secret-namespace": "n",
			}), &corev1.SecretReference{Name: "s", Namespace: "n"}, ""},
		"an annotation of the claim, which is not known any more": {
			map[string]string{p + "provisioner-secret-name": "${pvc.annotations['team/key']}", p + "provisioner-secret-namespace": "n"}, nil,
			`parameter csi.storage.k8s.io/provisioner-secret-name: "${pvc.annotations['team/key']}" refers to annotations of claim team/data, which is gone: "team/key"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Provision.ResolveForGone(tt.class, "team", "data", "pv-1")
			if (err != nil) != (tt.err != "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got error %v, want one that says %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Classes of snapshots have no such token.
func TestAnnotationsAreUnknownTokensOfOtherClasses(t *testing.T) {
	class := map[string]string{"csi.storage.k8s.io/snapshotter-secret-name": "${pvc.annotations['k']}", "csi.storage.k8s.io/snapshotter-secret-namespace": "n"}
	_, err := New("snapshotter-secret").Resolve(class, Tokens{})
	if want := `parameter csi.storage.k8s.io/snapshotter-secret-name: "${pvc.annotations['k']}" has unknown tokens`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
}
