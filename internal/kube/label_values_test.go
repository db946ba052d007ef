package kube

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestNodeLabelValue(t *testing.T) {
	const base = "external-provisioner"
	long := strings.Repeat("n", 42)
	tests := map[string]struct{ node, want string }{
		"a short name is unchanged":               {"worker-1", "external-provisioner-worker-1"},
		"the longest name that fits is unchanged": {long, base + "-" + long},
		"a longer name truncates the base":        {long + "n", "external-p-53f40b57-" + long + "n"},
		"a name that leaves no room is hashed":    {long + "nnnnnnnnnnn", base + "-698d23b8"},
		"the longest possible name is hashed":     {strings.Repeat("n", 253), base + "-1a4f7268"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := NodeLabelValue(base, tt.node)
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if problems := validation.IsValidLabelValue(got); len(problems) > 0 {
				t.Errorf("%s cannot be a label: %v", got, problems)
			}
		})
	}
}

func TestLabelValue(t *testing.T) {
	long := strings.Repeat("n", 63)
	for name, want := range map[string]string{
		"worker-1": "worker-1",
		long:       long,
		long + "a": strings.Repeat("n", 54) + "-" + hash(long+"a"),
		long + "b": strings.Repeat("n", 54) + "-" + hash(long+"b"),
	} {
		got := LabelValue(name)
		if got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if problems := validation.IsValidLabelValue(got); len(problems) > 0 {
			t.Errorf("%s cannot be a label: %v", got, problems)
		}
	}
}
