package provision

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
		"an empty new key: the default":       {map[string]string{"csi.storage.k8s.io/fstype": ""}, "ext4", ""},
		"an empty old key: the default":       {map[string]string{"fsType": ""}, "ext4", ""},
		"an empty key beside the other":       {map[string]string{"fstype": "xfs", "csi.storage.k8s.io/fstype": ""}, "xfs", ""},
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

// checkError wants an error that says part, or none if part is empty.
func checkError(t *testing.T, err error, part string) {
	t.Helper()
	if (err != nil) != (part != "") || (err != nil && !strings.Contains(err.Error(), part)) {
		t.Errorf("got error %v, want one that says %q", err, part)
	}
}
