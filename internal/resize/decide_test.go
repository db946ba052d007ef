package resize

import (
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	inProgress     = corev1.PersistentVolumeClaimControllerResizeInProgress
	infeasible     = corev1.PersistentVolumeClaimControllerResizeInfeasible
	nodePending    = corev1.PersistentVolumeClaimNodeResizePending
	nodeBusy       = corev1.PersistentVolumeClaimNodeResizeInProgress
	nodeInfeasible = corev1.PersistentVolumeClaimNodeResizeInfeasible

	resizeError     = corev1.PersistentVolumeClaimControllerResizeError
	nodeResizeError = corev1.PersistentVolumeClaimNodeResizeError
)

func TestDecideExpansion(t *testing.T) {
	info := announced(t, csitest.Options{})
	unable := announced(t, csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	}})
	nodeOnly := func(s *state) { s.info, s.nodeExpands = unable, true }
	rejected := func(ago time.Duration) change { return holds(resizeError, "Internal", ago) }
	unknown := reason(corev1.PersistentVolumeClaimResizing, outcomeUnknown)
	tests := map[string]struct {
		changes []change
		want    step
	}{
		"a claim that has what it requests needs nothing":        {nil, step{action: none}},
		"a claim that requests more is expanded":                 {[]change{requests(2)}, step{action: start, size: 2 * gib}},
		"a claim is expanded even if its volume is large enough": {[]change{requests(2), volumeHas(3)}, step{action: start, size: 2 * gib}},
		"the target of a finished expansion does not matter":     {[]change{requests(3), func(s *state) { s.claim.Status.AllocatedResources = list(1) }}, step{action: start, size: 3 * gib}},

		"an operation in progress is resumed":                                    {[]change{requests(2), record(inProgress, 2)}, step{action: resume, size: 2 * gib}},
		"an expansion in progress is resumed if the volume has its size already": {[]change{requests(2), record(inProgress, 2), volumeHas(2)}, step{action: resume, size: 2 * gib}},
		"an expansion in progress is resumed even if less is requested now":      {[]change{requests(2), record(inProgress, 3)}, step{action: resume, size: 3 * gib}},
		"an expansion in progress is resumed even if more is requested now":      {[]change{requests(4), record(inProgress, 3)}, step{action: resume, size: 3 * gib}},
		"a record without a target starts again":                                 {[]change{requests(2), func(s *state) { setExpansionStatus(s.claim, inProgress) }}, step{action: start, size: 2 * gib}},
		"a rejected target is recorded again before the driver is called": {
			[]change{requests(2), record(inProgress, 2), rejected(0)}, step{action: start, size: 2 * gib}},
		"after a rejection the request may be lowered":         {[]change{requests(2), record(inProgress, 3), rejected(0)}, step{action: start, size: 2 * gib}},
		"after a rejection the request may be raised":          {[]change{requests(4), record(inProgress, 3), rejected(0)}, step{action: start, size: 4 * gib}},
		"the target is never less than the volume's size":      {[]change{requests(2), record(inProgress, 3), rejected(0), volumeHas(3)}, step{action: start, size: 3 * gib}},
		"after an in-use error the volume must be unused":      {[]change{requests(2), record(inProgress, 2), holds(resizeError, "FailedPrecondition", 0)}, step{action: start, size: 2 * gib, unused: true}},
		"an infeasible target waits for RetryMax":              {[]change{requests(2), record(infeasible, 2), rejected(time.Minute)}, step{action: retryLater, after: 4 * time.Minute}},
		"an infeasible target is retried after RetryMax":       {[]change{requests(2), record(infeasible, 2), rejected(5 * time.Minute)}, step{action: start, size: 2 * gib}},
		"a target below an infeasible one is tried at once":    {[]change{requests(2), record(infeasible, 9), rejected(0)}, step{action: start, size: 2 * gib}},
		"an infeasible target without a time is tried at once": {[]change{requests(2), record(infeasible, 2)}, step{action: start, size: 2 * gib}},

		"a rejected target with an unknown outcome is confirmed before it is lowered": {
			[]change{requests(2), record(inProgress, 3), rejected(0), unknown}, step{action: confirm, size: 3 * gib}},
		"an infeasible target with an unknown outcome is confirmed before it is lowered": {[]change{requests(2), record(infeasible, 3), rejected(0), unknown}, step{action: confirm, size: 3 * gib}},
		"after an in-use error it is confirmed when the volume is unused":                {[]change{requests(2), record(inProgress, 3), holds(resizeError, "FailedPrecondition", 0), unknown}, step{action: confirm, size: 3 * gib, unused: true}},
		"the lower target is requested after another rejection":                          {[]change{requests(2), record(inProgress, 3), rejected(0), unknown, func(s *state) { s.sizeRejected = true }}, step{action: start, size: 2 * gib}},
		"a target with a doubtful outcome may be lowered":                                {[]change{requests(2), record(inProgress, 3), rejected(0), reason(corev1.PersistentVolumeClaimResizing, outcomeDoubtful)}, step{action: start, size: 2 * gib}},
		"a higher target needs no confirmation":                                          {[]change{requests(4), record(inProgress, 3), rejected(0), unknown}, step{action: start, size: 4 * gib}},
		"a pending node expansion is awaited":                                            {[]change{requests(2), record(nodePending, 2), volumeHas(2)}, step{action: none}},
		"a pending node expansion is awaited even if more is requested":                  {[]change{requests(3), record(nodePending, 2), volumeHas(2)}, step{action: none}},
		"a node expansion in progress is awaited":                                        {[]change{requests(3), record(nodeBusy, 2), volumeHas(2)}, step{action: none}},
		"a node expansion needs a volume that has been expanded":                         {[]change{requests(3), record(nodePending, 2)}, step{action: start, size: 2 * gib}},
		"an infeasible node expansion is retried after RetryMax": {
			[]change{requests(3), record(nodeInfeasible, 2), volumeHas(2), holds(nodeResizeError, "", 5*time.Minute)}, step{action: start, size: 2 * gib}},
		"an infeasible node expansion waits for RetryMax": {
			[]change{requests(2), record(nodeInfeasible, 2), volumeHas(2), holds(nodeResizeError, "", 2*time.Minute)}, step{action: retryLater, after: 3 * time.Minute}},

		"a driver that expands only on nodes is supported":                       {[]change{nodeOnly, requests(2)}, step{action: start, size: 2 * gib}},
		"an infeasible node-only expansion may be lowered":                       {[]change{nodeOnly, requests(2), record(nodeInfeasible, 3), volumeHas(3)}, step{action: start, size: 2 * gib}},
		"the old size stays annotated while the node expands":                    {[]change{requests(2), record(nodePending, 2), volumeHas(2), annotatedOldSize}, step{action: none}},
		"the old size is removed when the node is done":                          {[]change{annotatedOldSize}, step{action: cleanUp}},
		"the old size stays annotated while the volume is larger than the claim": {[]change{annotatedOldSize, volumeHas(2)}, step{action: none}},
		"a size that no volume can have is reported": {[]change{requestsQuantity("10E")}, step{
			action: report, reason: kube.ReasonVolumeResizeFailed, message: "the claim requests a size that no volume can have: 10E is too much: the most is 9223372036854775807 bytes, just below 8Ei; request a smaller size"}},
		"an expansion in progress is resumed even if a size that no volume can have is requested": {[]change{requestsQuantity("20E"), record(inProgress, 3)}, step{action: resume, size: 3 * gib}},
		"the node is awaited even if a size that no volume can have is requested":                 {[]change{requestsQuantity("20E"), record(nodePending, 2), volumeHas(2)}, step{action: none}},
		"a claim whose volume is larger than any that CSI can express needs nothing":              {[]change{requestsQuantity("1Gi"), hasQuantity("10E")}, step{action: none}},
		"an expansion in progress is resumed even if the driver does not announce it any more": {
			[]change{requests(2), record(inProgress, 2), func(s *state) { s.info = unable }}, step{action: resume, size: 2 * gib}},
		"once it was rejected, the driver is reported": {[]change{requests(2), record(inProgress, 2), rejected(0), func(s *state) { s.info = unable }}, step{
			action: report, reason: kube.ReasonVolumeResizeFailed, message: "driver csitest.holdfast.io cannot expand volumes: it does not announce EXPAND_VOLUME"}},
		"a driver that cannot expand is reported": {[]change{requests(2), func(s *state) { s.info = unable }}, step{
			action: report, reason: kube.ReasonVolumeResizeFailed, message: "driver csitest.holdfast.io cannot expand volumes: it does not announce EXPAND_VOLUME"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := bound(info)
			for _, change := range tt.changes {
				change(&s)
			}
			if diff := cmp.Diff(tt.want, decideExpansion(s, options(), noon), cmp.AllowUnexported(step{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A driver may lose EXPAND_VOLUME by an upgrade, and announce it for its nodes only. A call that
// is on record may have been sent before.
func TestSkipsController(t *testing.T) {
	expands := announced(t, csitest.Options{})
	nodeOnly := announced(t, csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	}})
	started := func(onNode bool) change {
		return func(s *state) { startExpansion(s.claim, 2*gib, onNode, noon) }
	}
	tests := map[string]struct {
		changes []change
		driver  csi.Info
		do      action
		want    bool
	}{
		"a driver that expands volumes is called":                     {nil, expands, start, false},
		"one that expands them only on nodes is not":                  {nil, nodeOnly, start, true},
		"nor is it when that is on record":                            {[]change{started(true)}, nodeOnly, resume, true},
		"it is called if that may have been done before":              {[]change{started(false)}, nodeOnly, resume, false},
		"also if the record does not say":                             {[]change{record(inProgress, 2)}, nodeOnly, resume, false},
		"and to find out what an earlier call has done":               {[]change{started(false)}, nodeOnly, confirm, false},
		"a driver that expands volumes by now is called":              {[]change{started(true)}, expands, resume, false},
		"a record of the node gives way to one of the driver":         {[]change{started(true), started(false)}, nodeOnly, resume, false},
		"and the other way round":                                     {[]change{started(false), started(true)}, nodeOnly, resume, true},
		"a call whose outcome is unknown stays so for the node's too": {[]change{started(false), reason(corev1.PersistentVolumeClaimResizing, outcomeUnknown), started(true)}, nodeOnly, confirm, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := bound(tt.driver)
			s.nodeExpands = true
			for _, change := range tt.changes {
				change(&s)
			}
			if got := s.skipsController(step{action: tt.do}); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestVolumeInUseIsIgnoredIfDisabled(t *testing.T) {
	s := bound(announced(t, csitest.Options{}))
	for _, change := range []change{requests(2), record(inProgress, 2), holds(resizeError, "FailedPrecondition", 0)} {
		change(&s)
	}
	o := options()
	o.HandleInUseError = false
	if next := decideExpansion(s, o, noon); next.unused {
		t.Errorf("got %+v", next)
	}
}

func TestDecideModification(t *testing.T) {
	const (
		pending    = corev1.PersistentVolumeClaimModifyVolumePending
		inProgress = corev1.PersistentVolumeClaimModifyVolumeInProgress
		infeasible = corev1.PersistentVolumeClaimModifyVolumeInfeasible
	)
	rejected := func(ago time.Duration) change {
		return holds(corev1.PersistentVolumeClaimVolumeModifyVolumeError, "Internal", ago)
	}
	missing := func(s *state) { s.desiredClass = nil }
	reports := func(kind action, message string) step {
		return step{action: kind, reason: kube.ReasonVolumeModifyFailed, message: message}
	}
	unknown, doubtful := reason(corev1.PersistentVolumeClaimVolumeModifyingVolume, outcomeUnknown), reason(corev1.PersistentVolumeClaimVolumeModifyingVolume, outcomeDoubtful)
	gold, silver := attributes("gold", time.Hour), attributes("silver", time.Hour)
	tests := map[string]struct {
		changes []change
		want    step
	}{
		"a claim without a class needs nothing":                                    {nil, step{action: none}},
		"a claim that has its class needs nothing":                                 {[]change{wants("gold"), current("gold")}, step{action: none}},
		"a claim without a current class is modified":                              {[]change{wants("gold")}, step{action: start, class: gold}},
		"a claim with another class is modified":                                   {[]change{wants("gold"), current("silver")}, step{action: start, class: gold}},
		"a missing class is awaited":                                               {[]change{wants("gold"), missing}, reports(waitForClass, `VolumeAttributesClass "gold" of the claim does not exist; the volume is modified when it exists`)},
		"a pending class that exists now is applied":                               {[]change{wants("gold"), toGold(pending)}, step{action: start, class: gold}},
		"another class may replace a pending one":                                  {[]change{wants("silver"), toGold(pending)}, step{action: start, class: silver}},
		"a pending class may be removed":                                           {[]change{unwanted, toGold(pending)}, step{action: cancel}},
		"the current class may replace a pending one":                              {[]change{wants("silver"), current("silver"), toGold(pending)}, step{action: cancel}},
		"a class of another driver is not applied":                                 {[]change{wants("gold"), func(s *state) { s.desiredClass.DriverName = "other" }}, reports(waitForClass, `VolumeAttributesClass "gold" is for driver other, and the volume belongs to driver csitest.holdfast.io: choose another class`)},
		"an operation in progress is resumed":                                      {[]change{wants("gold"), toGold(inProgress)}, step{action: resume, class: gold}},
		"a modification in progress is resumed even if another class is requested": {[]change{wants("silver"), toGold(inProgress)}, step{action: resume, class: gold}},
		"a modification in progress is resumed even if the old class is requested": {[]change{wants("silver"), current("silver"), toGold(inProgress)}, step{action: resume, class: gold}},
		"a modification in progress is resumed even if no class is requested":      {[]change{unwanted, toGold(inProgress)}, step{action: resume, class: gold}},
		"a modification in progress whose class is gone is reported":               {[]change{wants("silver"), toGold(inProgress), func(s *state) { s.targetClass = nil }}, reports(report, `VolumeAttributesClass "gold" is gone, and the volume may already have been modified to it: create it again as it was, so that the modification can finish`)},
		"a rejected target is recorded again before the driver is called": {
			[]change{wants("gold"), toGold(inProgress), rejected(0)}, step{action: start, class: gold}},
		"after a rejection another class may be applied":                                             {[]change{wants("silver"), toGold(inProgress), rejected(0)}, step{action: start, class: silver}},
		"after a rejection the old class is applied again, because some attributes may have changed": {[]change{wants("silver"), current("silver"), toGold(inProgress), rejected(0)}, step{action: start, class: silver}},
		"after a rejection without an old class the modification is cancelled":                       {[]change{unwanted, toGold(inProgress), rejected(0)}, step{action: cancel}},
		"an infeasible target waits for RetryMax":                                                    {[]change{wants("gold"), toGold(infeasible), rejected(time.Minute)}, step{action: retryLater, after: 4 * time.Minute}},
		"an infeasible target is retried after RetryMax":                                             {[]change{wants("gold"), toGold(infeasible), rejected(5 * time.Minute)}, step{action: start, class: gold}},
		"an infeasible class that was created again is tried at once":                                {[]change{wants("gold"), toGold(infeasible), rejected(time.Minute), func(s *state) { s.desiredClass = attributes("gold", 0) }}, step{action: start, class: attributes("gold", 0)}},
		"another class is tried at once":                                                             {[]change{wants("silver"), toGold(infeasible), rejected(0)}, step{action: start, class: silver}},
		"an infeasible class is cancelled if the old class is requested, because nothing has changed": {
			[]change{wants("silver"), current("silver"), toGold(infeasible), rejected(0)}, step{action: cancel}},
		"an infeasible class is cancelled if no class is requested": {[]change{unwanted, toGold(infeasible), rejected(0)}, step{action: cancel}},
		"after an unknown outcome the old class is applied again": {
			[]change{wants("silver"), current("silver"), toGold(infeasible), rejected(0), unknown}, step{action: start, class: silver}},
		"after a doubtful outcome the old class is applied again":                                  {[]change{wants("silver"), current("silver"), toGold(infeasible), rejected(0), doubtful}, step{action: start, class: silver}},
		"after an unknown outcome the old class is applied again even if another class is pending": {[]change{wants("silver"), current("silver"), toGold(pending), unknown}, step{action: start, class: silver}},
		"after an unknown outcome without an old class the class is confirmed":                     {[]change{unwanted, toGold(infeasible), rejected(0), unknown}, step{action: confirm, class: gold}},
		"after an unknown outcome nothing is cancelled while the driver cannot be called": {[]change{unwanted, toGold(infeasible), rejected(0), unknown, func(s *state) { s.canModify = false }},
			reports(report, "the claim has a VolumeAttributesClass, and driver csitest.holdfast.io cannot modify volumes: it does not announce MODIFY_VOLUME")},
		"it is cancelled after another rejection": {[]change{unwanted, toGold(infeasible), rejected(0), unknown, func(s *state) { s.classRejected = true }}, step{action: cancel}},
		"it is cancelled if the class is gone":    {[]change{unwanted, toGold(infeasible), rejected(0), unknown, func(s *state) { s.targetClass = nil }}, step{action: cancel}},
		"a driver that cannot modify is reported": {[]change{wants("gold"), func(s *state) { s.canModify = false }},
			reports(report, "the claim has a VolumeAttributesClass, and driver csitest.holdfast.io cannot modify volumes: it does not announce MODIFY_VOLUME")},
	}
	info := announced(t, csitest.Options{})
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := bound(info)
			for _, change := range tt.changes {
				change(&s)
			}
			if diff := cmp.Diff(tt.want, decideModification(s, options(), noon), cmp.AllowUnexported(step{})); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("nothing is modified with the feature gate disabled", func(t *testing.T) {
		s, o := bound(info), options()
		wants("gold")(&s)
		o.Modify = false
		if next := decideModification(s, o, noon); next.action != none {
			t.Errorf("got %+v", next)
		}
	})
}
