package kube

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestNodeValue(t *testing.T) {
	const base = "external-provisioner"
	long := strings.Repeat("n", 42)
	tests := map[string]struct{ node, want string }{
		"a name that fits is there as it is":              {"worker-1", "external-provisioner-worker-1"},
		"the longest that fits":                           {long, base + "-" + long},
		"a longer one takes room from the base":           {long + "n", "external-p-53f40b57-" + long + "n"},
		"one that takes all room is only there as a hash": {long + "nnnnnnnnnnn", base + "-698d23b8"},
		"so is the longest that a node can have":          {strings.Repeat("n", 253), base + "-1a4f7268"},
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
