package resize

import (
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

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
		"a claim that has what it requests rests":        {nil, step{action: none}},
		"a claim that requests more gets it":             {[]change{requests(2)}, step{action: start, size: 2 * gib}},
		"also if its volume is large enough already":     {[]change{requests(2), volumeHas(3)}, step{action: start, size: 2 * gib}},
		"what an earlier expansion left does not matter": {[]change{requests(3), func(s *state) { s.claim.Status.AllocatedResources = list(1) }}, step{action: start, size: 3 * gib}},

		"what may be under way is asked for again": {[]change{requests(2), record(inProgress, 2)}, step{action: resume, size: 2 * gib}},
		"also when the volume has grown already":   {[]change{requests(2), record(inProgress, 2), volumeHas(2)}, step{action: resume, size: 2 * gib}},
		"also when less is requested meanwhile":    {[]change{requests(2), record(inProgress, 3)}, step{action: resume, size: 3 * gib}},
		"also when more is requested meanwhile":    {[]change{requests(4), record(inProgress, 3)}, step{action: resume, size: 3 * gib}},
		"a record without a target begins anew":    {[]change{requests(2), func(s *state) { setExpansionStatus(s.claim, inProgress) }}, step{action: start, size: 2 * gib}},
		"what was refused is on record before it is asked for again": {
			[]change{requests(2), record(inProgress, 2), rejected(0)}, step{action: start, size: 2 * gib}},
		"after a refusal the request may be lowered":     {[]change{requests(2), record(inProgress, 3), rejected(0)}, step{action: start, size: 2 * gib}},
		"after a refusal the request may be raised":      {[]change{requests(4), record(inProgress, 3), rejected(0)}, step{action: start, size: 4 * gib}},
		"what the volume has got is never asked back":    {[]change{requests(2), record(inProgress, 3), rejected(0), volumeHas(3)}, step{action: start, size: 3 * gib}},
		"what was in use needs to be unused":             {[]change{requests(2), record(inProgress, 2), holds(resizeError, "FailedPrecondition", 0)}, step{action: start, size: 2 * gib, unused: true}},
		"what is infeasible waits for the longest pause": {[]change{requests(2), record(infeasible, 2), rejected(time.Minute)}, step{action: retryLater, after: 4 * time.Minute}},
		"and is tried again after it":                    {[]change{requests(2), record(infeasible, 2), rejected(5 * time.Minute)}, step{action: start, size: 2 * gib}},
		"or at once when less is requested":              {[]change{requests(2), record(infeasible, 9), rejected(0)}, step{action: start, size: 2 * gib}},
		"or if nobody knows since when it is":            {[]change{requests(2), record(infeasible, 2)}, step{action: start, size: 2 * gib}},

		"what was not answered before it was refused is asked for once more when less is requested": {
			[]change{requests(2), record(inProgress, 3), rejected(0), unknown}, step{action: confirm, size: 3 * gib}},
		"also if it is infeasible by now":                        {[]change{requests(2), record(infeasible, 3), rejected(0), unknown}, step{action: confirm, size: 3 * gib}},
		"and not before it is unused, if it was in use":          {[]change{requests(2), record(inProgress, 3), holds(resizeError, "FailedPrecondition", 0), unknown}, step{action: confirm, size: 3 * gib, unused: true}},
		"and the less is asked for when it is refused then":      {[]change{requests(2), record(inProgress, 3), rejected(0), unknown, func(s *state) { s.sizeRejected = true }}, step{action: start, size: 2 * gib}},
		"what the driver has given up on the way may be lowered": {[]change{requests(2), record(inProgress, 3), rejected(0), reason(corev1.PersistentVolumeClaimResizing, outcomeDoubtful)}, step{action: start, size: 2 * gib}},
		"more, or the same, is asked for without that":           {[]change{requests(4), record(inProgress, 3), rejected(0), unknown}, step{action: start, size: 4 * gib}},
		"the node's turn is awaited":                             {[]change{requests(2), record(nodePending, 2), volumeHas(2)}, step{action: none}},
		"also when still more is requested":                      {[]change{requests(3), record(nodePending, 2), volumeHas(2)}, step{action: none}},
		"a node that is at it is awaited":                        {[]change{requests(3), record(nodeBusy, 2), volumeHas(2)}, step{action: none}},
		"a node has nothing to do before the volume grew":        {[]change{requests(3), record(nodePending, 2)}, step{action: start, size: 2 * gib}},
		"a node that cannot gets another chance": {
			[]change{requests(3), record(nodeInfeasible, 2), volumeHas(2), holds(nodeResizeError, "", 5*time.Minute)}, step{action: start, size: 2 * gib}},
		"but not before the longest pause": {
			[]change{requests(2), record(nodeInfeasible, 2), volumeHas(2), holds(nodeResizeError, "", 2*time.Minute)}, step{action: retryLater, after: 3 * time.Minute}},

		"a driver with nothing but nodes asks them":               {[]change{nodeOnly, requests(2)}, step{action: start, size: 2 * gib}},
		"whose nodes cannot may be asked for less":                {[]change{nodeOnly, requests(2), record(nodeInfeasible, 3), volumeHas(3)}, step{action: start, size: 2 * gib}},
		"the old size stays on the volume while the node is busy": {[]change{requests(2), record(nodePending, 2), volumeHas(2), annotatedOldSize}, step{action: none}},
		"and is taken off when the node is done":                  {[]change{annotatedOldSize}, step{action: cleanUp}},
		"but not while the volume is larger than the claim":       {[]change{annotatedOldSize, volumeHas(2)}, step{action: none}},
		"a driver that cannot is told of": {[]change{requests(2), func(s *state) { s.info = unable }}, step{
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
		"a claim without a class rests":             {nil, step{action: none}},
		"a claim that has its class rests":          {[]change{wants("gold"), current("gold")}, step{action: none}},
		"a claim gets its first class":              {[]change{wants("gold")}, step{action: start, class: gold}},
		"a claim gets another class":                {[]change{wants("gold"), current("silver")}, step{action: start, class: gold}},
		"a class that does not exist is awaited":    {[]change{wants("gold"), missing}, reports(waitForClass, `VolumeAttributesClass "gold" of the claim does not exist; the volume is modified when it does`)},
		"one that came is taken":                    {[]change{wants("gold"), toGold(pending)}, step{action: start, class: gold}},
		"another one may be chosen instead":         {[]change{wants("silver"), toGold(pending)}, step{action: start, class: silver}},
		"or none":                                   {[]change{unwanted, toGold(pending)}, step{action: cancel}},
		"or the one that the claim has":             {[]change{wants("silver"), current("silver"), toGold(pending)}, step{action: cancel}},
		"a class of another driver is not applied":  {[]change{wants("gold"), func(s *state) { s.desiredClass.DriverName = "other" }}, reports(waitForClass, `VolumeAttributesClass "gold" is for driver other and the volume is of driver csitest.holdfast.io: choose another class`)},
		"what may be under way is asked for again":  {[]change{wants("gold"), toGold(inProgress)}, step{action: resume, class: gold}},
		"also when another class is wanted":         {[]change{wants("silver"), toGold(inProgress)}, step{action: resume, class: gold}},
		"also when the old class is wanted again":   {[]change{wants("silver"), current("silver"), toGold(inProgress)}, step{action: resume, class: gold}},
		"also when none is wanted any more":         {[]change{unwanted, toGold(inProgress)}, step{action: resume, class: gold}},
		"which takes the class that was begun with": {[]change{wants("silver"), toGold(inProgress), func(s *state) { s.targetClass = nil }}, reports(report, `VolumeAttributesClass "gold" is gone, and the volume may already have been changed to it: create it again as it was, so that the change can be brought to an end`)},
		"what was refused is on record before it is asked for again": {
			[]change{wants("gold"), toGold(inProgress), rejected(0)}, step{action: start, class: gold}},
		"after a refusal another class may be chosen":    {[]change{wants("silver"), toGold(inProgress), rejected(0)}, step{action: start, class: silver}},
		"the old one is applied again: some may be done": {[]change{wants("silver"), current("silver"), toGold(inProgress), rejected(0)}, step{action: start, class: silver}},
		"without an old one there is nothing to apply":   {[]change{unwanted, toGold(inProgress), rejected(0)}, step{action: cancel}},
		"what is infeasible waits for the longest pause": {[]change{wants("gold"), toGold(infeasible), rejected(time.Minute)}, step{action: retryLater, after: 4 * time.Minute}},
		"and is tried again after it":                    {[]change{wants("gold"), toGold(infeasible), rejected(5 * time.Minute)}, step{action: start, class: gold}},
		"or at once when the class was made anew":        {[]change{wants("gold"), toGold(infeasible), rejected(time.Minute), func(s *state) { s.desiredClass = attributes("gold", 0) }}, step{action: start, class: attributes("gold", 0)}},
		"another class does not wait":                    {[]change{wants("silver"), toGold(infeasible), rejected(0)}, step{action: start, class: silver}},
		"the old class is left as it is, for nothing is done": {
			[]change{wants("silver"), current("silver"), toGold(infeasible), rejected(0)}, step{action: cancel}},
		"and so is none": {[]change{unwanted, toGold(infeasible), rejected(0)}, step{action: cancel}},
		"but what was not answered before it was infeasible may be done: the old class is applied again": {
			[]change{wants("silver"), current("silver"), toGold(infeasible), rejected(0), unknown}, step{action: start, class: silver}},
		"also if the driver had given it up on the way": {[]change{wants("silver"), current("silver"), toGold(infeasible), rejected(0), doubtful}, step{action: start, class: silver}},
		"also if another class is awaited since":        {[]change{wants("silver"), current("silver"), toGold(pending), unknown}, step{action: start, class: silver}},
		"without an old one it is asked for once more":  {[]change{unwanted, toGold(infeasible), rejected(0), unknown}, step{action: confirm, class: gold}},
		"and given up when it is refused then":          {[]change{unwanted, toGold(infeasible), rejected(0), unknown, func(s *state) { s.classRejected = true }}, step{action: cancel}},
		"or if it is gone":                              {[]change{unwanted, toGold(infeasible), rejected(0), unknown, func(s *state) { s.targetClass = nil }}, step{action: cancel}},
		"a driver that cannot is told of": {[]change{wants("gold"), func(s *state) { s.canModify = false }},
			reports(report, "the claim has a VolumeAttributesClass and driver csitest.holdfast.io cannot modify volumes: it does not announce MODIFY_VOLUME")},
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
	t.Run("nothing is modified with the gate closed", func(t *testing.T) {
		s, o := bound(info), options()
		wants("gold")(&s)
		o.Modify = false
		if next := decideModification(s, o, noon); next.action != none {
			t.Errorf("got %+v", next)
		}
	})
}
