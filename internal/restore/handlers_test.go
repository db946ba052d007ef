package restore

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/runtime/oci"
)

func TestHandlers(t *testing.T) {
	tests := map[string]struct {
		handlers *Handlers
		class    *string
		says     string
	}{
		"the wrapper is not installed":            {&Handlers{Runtime: "containerd", Default: "runc"}, nil, "no handler of containerd calls holdfast-runtime on node n1: run holdfast node install"},
		"the default handler calls it":            {&Handlers{Runtime: "containerd", Default: "runc", Wrapped: []string{"runc"}}, nil, ""},
		"another handler calls it":                {&Handlers{Runtime: "cri-o", Default: "crun", Wrapped: []string{"holdfast"}}, nil, "the handler crun of cri-o, with which the pod starts, does not call"},
		"a pod may name that one":                 {&Handlers{Runtime: "cri-o", Default: "crun", Wrapped: []string{"holdfast"}}, ptr.To("restorable"), ""},
		"a default that is not known may call it": {&Handlers{Runtime: "cri-o", Wrapped: []string{"holdfast"}}, nil, ""},
		"a configuration that is not in effect":   {&Handlers{Runtime: "containerd", Default: "runc", Wrapped: []string{"runc"}, RestartRequired: true}, nil, "before it is restarted"},
		"a configuration that is not understood":  {nil, nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := tt.handlers.problemOf(&corev1.Pod{Spec: corev1.PodSpec{RuntimeClassName: tt.class}}, "n1")
			if (got == "") != (tt.says == "") || !strings.Contains(got, tt.says) {
				t.Errorf("got %q, want %q", got, tt.says)
			}
		})
	}
}

func TestWhatARunningContainerStartsAgainWith(t *testing.T) {
	wrapped := &Handlers{Runtime: "cri-o", Default: "crun", Wrapped: []string{"crun"}}
	tests := map[string]struct {
		bundle   oci.Bundle
		handlers *Handlers
		says     string
	}{
		"with the wrapper": {oci.Bundle{Wrapped: true, OfPod: true}, nil, ""},
		"containerd keeps what the pod was started with": {oci.Bundle{OfPod: true}, wrapped,
			"was started by runc, which cannot restore, and so are all containers of this pod: have the pod created anew"},
		"and the wrapper is to be installed first": {oci.Bundle{OfPod: true}, &Handlers{Runtime: "containerd", Default: "runc"},
			"all containers of this pod: run holdfast node install on node n1, and have the pod created anew"},
		"CRI-O looks at its configuration": {oci.Bundle{}, wrapped, ""},
		"which need not have the wrapper": {oci.Bundle{Runtime: "/usr/bin/crun"}, &Handlers{Runtime: "cri-o", Default: "crun"},
			"was started by /usr/bin/crun, which cannot restore: run holdfast node install on node n1"},
		"or is not understood": {oci.Bundle{Runtime: "/usr/bin/crun"}, nil, "run holdfast node install on node n1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := wrapperProblem("main", &tt.bundle, &corev1.Pod{}, tt.handlers, "n1")
			if (p == nil) != (tt.says == "") || p != nil && (p.reason != v1alpha1.ReasonNoWrapper || !strings.Contains(p.message, tt.says)) {
				t.Errorf("got %+v, want %q", p, tt.says)
			}
		})
	}
}
