package checkpoint

import (
	"testing"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

func TestEphemeralVolumes(t *testing.T) {
	t.Parallel()
	own, policys := &v1alpha1.EphemeralVolumes{}, &v1alpha1.EphemeralVolumes{}
	for name, test := range map[string]struct {
		own, policys, want *v1alpha1.EphemeralVolumes
		hasPolicy          bool
	}{
		"nobody says it":                  {},
		"the policy says it":              {policys: policys, hasPolicy: true, want: policys},
		"the Checkpoint takes precedence": {own: own, policys: policys, hasPolicy: true, want: own},
		"a Checkpoint without a policy":   {own: own, want: own},
		"a policy that does not say it":   {hasPolicy: true},
	} {
		s := &state{checkpoint: &v1alpha1.Checkpoint{Spec: v1alpha1.CheckpointSpec{EphemeralVolumes: test.own}}}
		if test.hasPolicy {
			s.policy = &v1alpha1.CheckpointPolicy{Spec: v1alpha1.CheckpointPolicySpec{EphemeralVolumes: test.policys}}
		}
		if got := s.ephemeralVolumes(); got != test.want {
			t.Errorf("%s: %p, want %p", name, got, test.want)
		}
	}
}
