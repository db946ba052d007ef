package schedule

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/record"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/kube/kubetest"
)

// One claim that can never work must not hide a schedule that works for nobody, and must not
// look like one.
func TestAvailable(t *testing.T) {
	fails := func(names ...string) map[string]string {
		all := map[string]string{}
		for _, name := range names {
			all[name] = "quota"
		}
		return all
	}
	tests := map[string]struct {
		change   func(*state)
		rejected map[string]string
		ready    string
		want     string
		says     string
	}{
		"all claims are in order":              {func(*state) {}, nil, "True Scheduled", "True Scheduled", "all 2 claims are in order"},
		"one of two claims is failing":         {func(*state) {}, fails("bad"), "False ClaimsFailing", "True Scheduled", "1 of 2 claims are in order"},
		"all claims are failing":               {func(*state) {}, fails("bad", "data"), "False ClaimsFailing", "False ClaimsFailing", "all 2 claims are failing"},
		"no claim is selected":                 {func(s *state) { s.targets = nil }, nil, "True NoClaims", "True NoClaims", "selects no claim"},
		"the schedule is suspended":            {func(s *state) { s.schedule.Spec.Suspend = true }, fails("bad"), "True Suspended", "True Suspended", "spec.suspend"},
		"a claim without a volume is no fault": {func(s *state) { s.targets[0].SkipReason = v1alpha1.NotBound }, nil, "True Scheduled", "True Scheduled", "in order"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := stateOf(t, midRun(), []corev1.PersistentVolumeClaim{boundClaim("bad"), boundClaim("data")})
			tt.change(s)
			status := newStatus(s, rejections{targets: tt.rejected}, noon)
			get := func(kind string) string {
				c := meta.FindStatusCondition(status.Conditions, kind)
				return string(c.Status) + " " + c.Reason
			}
			if ready, got := get(v1alpha1.Ready), get(v1alpha1.Available); ready != tt.ready || got != tt.want {
				t.Errorf("Ready is %s, Available is %s", ready, got)
			}
			if message := meta.FindStatusCondition(status.Conditions, v1alpha1.Available).Message; !strings.Contains(message, tt.says) {
				t.Errorf("it says %q", message)
			}
		})
	}
	s := stateOf(t, midRun(), nil)
	invalid := invalidStatus(s, errors.New("spec.schedule: no"), noon)
	if meta.IsStatusConditionTrue(invalid.Conditions, v1alpha1.Available) {
		t.Error("an invalid schedule is available")
	}
}

func TestADeniedStatusIsReportedOnTheSchedule(t *testing.T) {
	w := newDueTest(t)
	policy, said := &kubetest.Policy{Response: kubetest.DeniedByPolicy("snapshotschedules", "daily")}, record.NewFakeRecorder(9)
	r := w.process()
	r.client, r.events = policy.Apply(w.server), kube.NewEventsWithRecorder(said)
	s := r.kind.fromObject(w.schedule(t))
	status := s.Status.clone()
	status.LastTrigger = "other"
	if err := r.patchStatus(t.Context(), s, &status); !kube.IsDenied(err) || errors.Is(err, errConflict) {
		t.Errorf("got %v", err)
	}
	kubetest.WantEvent(t, said, "Warning", kube.ReasonDenied, "writing the status", "ValidatingAdmissionPolicy")
}
