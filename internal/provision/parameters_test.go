package provision

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestDriverParameters(t *testing.T) {
	tests := map[string]struct {
		class, want map[string]string
		err         string
	}{
		"the driver's own pass through": {class: map[string]string{"a": "1", "b": "2"}, want: map[string]string{"a": "1", "b": "2"}},
		"those for Kubernetes are taken out": {
			class: map[string]string{"a": "1", "csi.storage.k8s.io/fstype": "xfs", "csi.storage.k8s.io/node-expand-secret-name": "s"},
			want:  map[string]string{"a": "1"},
		},
		"the old filesystem key passes through": {class: map[string]string{"fsType": "xfs"}, want: map[string]string{"fsType": "xfs"}},
		"the old secret keys pass through":      {class: map[string]string{"csiNodeStageSecretName": "s"}, want: map[string]string{"csiNodeStageSecretName": "s"}},
		"a mistyped key is an error that names it": {
			class: map[string]string{"csi.storage.k8s.io/node-stage-secret-nam": "s"}, err: `"csi.storage.k8s.io/node-stage-secret-nam"`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := driverParameters(tt.class)
			checkError(t, err, tt.err)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFSType(t *testing.T) {
	tests := map[string]struct {
		class map[string]string
		want  string
		err   string
	}{
		"the class does not say: the default": {map[string]string{"a": "1"}, "ext4", ""},
		"the new key":                         {map[string]string{"csi.storage.k8s.io/fstype": "xfs"}, "xfs", ""},
		"the old key in any case":             {map[string]string{"FsTyPe": "xfs"}, "xfs", ""},
		"both keys are an error":              {map[string]string{"fstype": "xfs", "csi.storage.k8s.io/fstype": "xfs"}, "", "more than once"},
		"the old key twice is an error":       {map[string]string{"fstype": "xfs", "fsType": "ext4"}, "", "more than once"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := fsType(tt.class, "ext4")
			checkError(t, err, tt.err)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSecretRefs(t *testing.T) {
	const p = "csi.storage.k8s.io/"
	ref := func(name, namespace string) *corev1.SecretReference {
		return &corev1.SecretReference{Name: name, Namespace: namespace}
	}
	tests := map[string]struct {
		class map[string]string
		use   secretUse
		want  *corev1.SecretReference
		err   string
	}{
		"none":                            {nil, secretProvision, nil, ""},
		"one of its own":                  {map[string]string{p + "provisioner-secret-name": "s", p + "provisioner-secret-namespace": "n"}, secretProvision, ref("s", "n"), ""},
		"one for another use is not ours": {map[string]string{p + "provisioner-secret-name": "s", p + "provisioner-secret-namespace": "n"}, secretNodeStage, nil, ""},
		"the default for all":             {map[string]string{p + "secret-name": "s", p + "secret-namespace": "n"}, secretNodeExpand, ref("s", "n"), ""},
		"its own comes before the default": {map[string]string{
			p + "secret-name": "s", p + "secret-namespace": "n", p + "node-publish-secret-name": "own", p + "node-publish-secret-namespace": "n",
		}, secretNodePublish, ref("own", "n"), ""},
		"the deprecated keys": {map[string]string{"csiControllerPublishSecretName": "s", "csiControllerPublishSecretNamespace": "n"}, secretControllerPublish, ref("s", "n"), ""},
		"every token": {map[string]string{
			p + "provisioner-secret-name":      "${pvc.name}.${pvc.namespace}.${pv.name}.${pvc.annotations['team/key']}",
			p + "provisioner-secret-namespace": "${pvc.namespace}",
		}, secretProvision, ref("data.team.pv-1.gold", "team"), ""},
		"a name without a namespace": {map[string]string{p + "provisioner-secret-name": "s"}, secretProvision, nil, "both"},
		"an empty name":              {map[string]string{p + "provisioner-secret-name": "", p + "provisioner-secret-namespace": "n"}, secretProvision, nil, "empty"},
		"new and deprecated keys at once": {map[string]string{
			p + "node-stage-secret-name": "s", p + "node-stage-secret-namespace": "n", "csiNodeStageSecretName": "s",
		}, secretNodeStage, nil, "deprecated"},
		"an unknown token":                        {map[string]string{p + "secret-name": "${pod.name}", p + "secret-namespace": "n"}, secretDefault, nil, "${pod.name}"},
		"an annotation that the claim lacks":      {map[string]string{p + "secret-name": "${pvc.annotations['none']}", p + "secret-namespace": "n"}, secretDefault, nil, "none"},
		"the claim's name choosing the namespace": {map[string]string{p + "secret-name": "s", p + "secret-namespace": "${pvc.name}"}, secretDefault, nil, "${pvc.name}"},
		"a name that no secret can have":          {map[string]string{p + "secret-name": "Not_A_Name", p + "secret-namespace": "n"}, secretDefault, nil, "Not_A_Name"},
		"a namespace that none can be":            {map[string]string{p + "secret-name": "s", p + "secret-namespace": "a.b"}, secretDefault, nil, "a.b"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := claim()
			c.Annotations["team/key"] = "gold"
			refs, err := secretRefs(tt.class, c, "pv-1")
			checkError(t, err, tt.err)
			if diff := cmp.Diff(tt.want, refs[tt.use]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// checkError wants an error that says part, or none if part is empty.
func checkError(t *testing.T, err error, part string) {
	t.Helper()
	if (err != nil) != (part != "") || (err != nil && !strings.Contains(err.Error(), part)) {
		t.Errorf("got error %v, want one that says %q", err, part)
	}
}
