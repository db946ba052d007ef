package secretref

import (
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
		"an unknown token":                        {map[string]string{p + "secret-name": "${pod.name}", p + "secret-namespace": "n"}, Default, nil, "${pod.name}"},
		"an annotation that the claim lacks":      {map[string]string{p + "secret-name": "${pvc.annotations['none']}", p + "secret-namespace": "n"}, Default, nil, "none"},
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
