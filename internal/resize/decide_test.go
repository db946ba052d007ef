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

	refusedOnRecord = corev1.PersistentVolumeClaimControllerResizeError
	nodeRefused     = corev1.PersistentVolumeClaimNodeResizeError
)

func TestDecideExpansion(t *testing.T) {
	info := announced(t, csitest.Options{})
	unable := announced(t, csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	}})
	nodeOnly := func(s *seen) { s.info, s.node = unable, true }
	refused := func(ago time.Duration) change { return holds(refusedOnRecord, "Internal", ago) }
	unknown := reason(corev1.PersistentVolumeClaimResizing, outcomeUnknown)
	tests := map[string]struct {
		changes []change
		want    step
	}{
		"a claim that has what it requests rests":        {nil, step{kind: rest}},
		"a claim that requests more gets it":             {[]change{requests(2)}, step{kind: begin, size: 2 * gib}},
		"also if its volume is large enough already":     {[]change{requests(2), volumeHas(3)}, step{kind: begin, size: 2 * gib}},
		"what an earlier expansion left does not matter": {[]change{requests(3), func(s *seen) { s.claim.Status.AllocatedResources = list(1) }}, step{kind: begin, size: 3 * gib}},

		"what may be under way is asked for again": {[]change{requests(2), record(inProgress, 2)}, step{kind: resume, size: 2 * gib}},
		"also when the volume has grown already":   {[]change{requests(2), record(inProgress, 2), volumeHas(2)}, step{kind: resume, size: 2 * gib}},
		"also when less is requested meanwhile":    {[]change{requests(2), record(inProgress, 3)}, step{kind: resume, size: 3 * gib}},
		"also when more is requested meanwhile":    {[]change{requests(4), record(inProgress, 3)}, step{kind: resume, size: 3 * gib}},
		"a record without a target begins anew":    {[]change{requests(2), func(s *seen) { setExpansion(s.claim, inProgress) }}, step{kind: begin, size: 2 * gib}},
		"what was refused is on record before it is asked for again": {
			[]change{requests(2), record(inProgress, 2), refused(0)}, step{kind: begin, size: 2 * gib}},
		"after a refusal the request may be lowered":     {[]change{requests(2), record(inProgress, 3), refused(0)}, step{kind: begin, size: 2 * gib}},
		"after a refusal the request may be raised":      {[]change{requests(4), record(inProgress, 3), refused(0)}, step{kind: begin, size: 4 * gib}},
		"what the volume has got is never asked back":    {[]change{requests(2), record(inProgress, 3), refused(0), volumeHas(3)}, step{kind: begin, size: 3 * gib}},
		"what was in use needs to be unused":             {[]change{requests(2), record(inProgress, 2), holds(refusedOnRecord, "FailedPrecondition", 0)}, step{kind: begin, size: 2 * gib, unused: true}},
		"what is infeasible waits for the longest pause": {[]change{requests(2), record(infeasible, 2), refused(time.Minute)}, step{kind: later, after: 4 * time.Minute}},
		"and is tried again after it":                    {[]change{requests(2), record(infeasible, 2), refused(5 * time.Minute)}, step{kind: begin, size: 2 * gib}},
		"or at once when less is requested":              {[]change{requests(2), record(infeasible, 9), refused(0)}, step{kind: begin, size: 2 * gib}},
		"or if nobody knows since when it is":            {[]change{requests(2), record(infeasible, 2)}, step{kind: begin, size: 2 * gib}},

		"what was not answered before it was refused is asked for once more when less is requested": {
			[]change{requests(2), record(inProgress, 3), refused(0), unknown}, step{kind: settle, size: 3 * gib}},
		"also if it is infeasible by now":                        {[]change{requests(2), record(infeasible, 3), refused(0), unknown}, step{kind: settle, size: 3 * gib}},
		"and not before it is unused, if it was in use":          {[]change{requests(2), record(inProgress, 3), holds(refusedOnRecord, "FailedPrecondition", 0), unknown}, step{kind: settle, size: 3 * gib, unused: true}},
		"and the less is asked for when it is refused then":      {[]change{requests(2), record(inProgress, 3), refused(0), unknown, func(s *seen) { s.sizeRefused = true }}, step{kind: begin, size: 2 * gib}},
		"what the driver has given up on the way may be lowered": {[]change{requests(2), record(inProgress, 3), refused(0), reason(corev1.PersistentVolumeClaimResizing, outcomeDoubtful)}, step{kind: begin, size: 2 * gib}},
		"more, or the same, is asked for without that":           {[]change{requests(4), record(inProgress, 3), refused(0), unknown}, step{kind: begin, size: 4 * gib}},
		"the node's turn is awaited":                             {[]change{requests(2), record(nodePending, 2), volumeHas(2)}, step{kind: rest}},
		"also when still more is requested":                      {[]change{requests(3), record(nodePending, 2), volumeHas(2)}, step{kind: rest}},
		"a node that is at it is awaited":                        {[]change{requests(3), record(nodeBusy, 2), volumeHas(2)}, step{kind: rest}},
		"a node has nothing to do before the volume grew":        {[]change{requests(3), record(nodePending, 2)}, step{kind: begin, size: 2 * gib}},
		"a node that cannot gets another chance": {
			[]change{requests(3), record(nodeInfeasible, 2), volumeHas(2), holds(nodeRefused, "", 5*time.Minute)}, step{kind: begin, size: 2 * gib}},
		"but not before the longest pause": {
			[]change{requests(2), record(nodeInfeasible, 2), volumeHas(2), holds(nodeRefused, "", 2*time.Minute)}, step{kind: later, after: 3 * time.Minute}},

		"a driver with nothing but nodes asks them":               {[]change{nodeOnly, requests(2)}, step{kind: begin, size: 2 * gib}},
		"whose nodes cannot may be asked for less":                {[]change{nodeOnly, requests(2), record(nodeInfeasible, 3), volumeHas(3)}, step{kind: begin, size: 2 * gib}},
		"the old size stays on the volume while the node is busy": {[]change{requests(2), record(nodePending, 2), volumeHas(2), noted}, step{kind: rest}},
		"and is taken off when the node is done":                  {[]change{noted}, step{kind: tidy}},
		"but not while the volume is larger than the claim":       {[]change{noted, volumeHas(2)}, step{kind: rest}},
		"a driver that cannot is told of": {[]change{requests(2), func(s *seen) { s.info = unable }}, step{
			kind: say, reason: kube.ReasonVolumeResizeFailed, message: "driver csitest.holdfast.io cannot expand volumes: it does not announce EXPAND_VOLUME"}},
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

func TestAVolumeInUseIsNotLookedAfterUnlessAskedTo(t *testing.T) {
	s := bound(announced(t, csitest.Options{}))
	for _, change := range []change{requests(2), record(inProgress, 2), holds(refusedOnRecord, "FailedPrecondition", 0)} {
		change(&s)
	}
	o := options()
	o.LookForUsers = false
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
	refused := func(ago time.Duration) change {
		return holds(corev1.PersistentVolumeClaimVolumeModifyVolumeError, "Internal", ago)
	}
	missing := func(s *seen) { s.wanted = nil }
	fails := func(kind kind, message string) step {
		return step{kind: kind, reason: kube.ReasonVolumeModifyFailed, message: message}
	}
	unknown, doubtful := reason(corev1.PersistentVolumeClaimVolumeModifyingVolume, outcomeUnknown), reason(corev1.PersistentVolumeClaimVolumeModifyingVolume, outcomeDoubtful)
	gold, silver := attributes("gold", time.Hour), attributes("silver", time.Hour)
	tests := map[string]struct {
		changes []change
		want    step
	}{
		"a claim without a class rests":             {nil, step{kind: rest}},
		"a claim that has its class rests":          {[]change{wants("gold"), current("gold")}, step{kind: rest}},
		"a claim gets its first class":              {[]change{wants("gold")}, step{kind: begin, class: gold}},
		"a claim gets another class":                {[]change{wants("gold"), current("silver")}, step{kind: begin, class: gold}},
		"a class that does not exist is awaited":    {[]change{wants("gold"), missing}, fails(await, `VolumeAttributesClass "gold" of the claim does not exist; the volume is modified when it does`)},
		"one that came is taken":                    {[]change{wants("gold"), toGold(pending)}, step{kind: begin, class: gold}},
		"another one may be chosen instead":         {[]change{wants("silver"), toGold(pending)}, step{kind: begin, class: silver}},
		"or none":                                   {[]change{unwanted, toGold(pending)}, step{kind: cancel}},
		"or the one that the claim has":             {[]change{wants("silver"), current("silver"), toGold(pending)}, step{kind: cancel}},
		"a class of another driver is not applied":  {[]change{wants("gold"), func(s *seen) { s.wanted.DriverName = "other" }}, fails(await, `VolumeAttributesClass "gold" is for driver other and the volume is of driver csitest.holdfast.io: choose another class`)},
		"what may be under way is asked for again":  {[]change{wants("gold"), toGold(inProgress)}, step{kind: resume, class: gold}},
		"also when another class is wanted":         {[]change{wants("silver"), toGold(inProgress)}, step{kind: resume, class: gold}},
		"also when the old class is wanted again":   {[]change{wants("silver"), current("silver"), toGold(inProgress)}, step{kind: resume, class: gold}},
		"also when none is wanted any more":         {[]change{unwanted, toGold(inProgress)}, step{kind: resume, class: gold}},
		"which takes the class that was begun with": {[]change{wants("silver"), toGold(inProgress), func(s *seen) { s.begun = nil }}, fails(say, `VolumeAttributesClass "gold" is gone, and the volume may already have been changed to it: create it again as it was, so that the change can be brought to an end`)},
		"what was refused is on record before it is asked for again": {
			[]change{wants("gold"), toGold(inProgress), refused(0)}, step{kind: begin, class: gold}},
		"after a refusal another class may be chosen":    {[]change{wants("silver"), toGold(inProgress), refused(0)}, step{kind: begin, class: silver}},
		"the old one is applied again: some may be done": {[]change{wants("silver"), current("silver"), toGold(inProgress), refused(0)}, step{kind: begin, class: silver}},
		"without an old one there is nothing to apply":   {[]change{unwanted, toGold(inProgress), refused(0)}, step{kind: cancel}},
		"what is infeasible waits for the longest pause": {[]change{wants("gold"), toGold(infeasible), refused(time.Minute)}, step{kind: later, after: 4 * time.Minute}},
		"and is tried again after it":                    {[]change{wants("gold"), toGold(infeasible), refused(5 * time.Minute)}, step{kind: begin, class: gold}},
		"or at once when the class was made anew":        {[]change{wants("gold"), toGold(infeasible), refused(time.Minute), func(s *seen) { s.wanted = attributes("gold", 0) }}, step{kind: begin, class: attributes("gold", 0)}},
		"another class does not wait":                    {[]change{wants("silver"), toGold(infeasible), refused(0)}, step{kind: begin, class: silver}},
		"the old class is left as it is, for nothing is done": {
			[]change{wants("silver"), current("silver"), toGold(infeasible), refused(0)}, step{kind: cancel}},
		"and so is none": {[]change{unwanted, toGold(infeasible), refused(0)}, step{kind: cancel}},
		"but what was not answered before it was infeasible may be done: the old class is applied again": {
			[]change{wants("silver"), current("silver"), toGold(infeasible), refused(0), unknown}, step{kind: begin, class: silver}},
		"also if the driver had given it up on the way": {[]change{wants("silver"), current("silver"), toGold(infeasible), refused(0), doubtful}, step{kind: begin, class: silver}},
		"also if another class is awaited since":        {[]change{wants("silver"), current("silver"), toGold(pending), unknown}, step{kind: begin, class: silver}},
		"without an old one it is asked for once more":  {[]change{unwanted, toGold(infeasible), refused(0), unknown}, step{kind: settle, class: gold}},
		"and given up when it is refused then":          {[]change{unwanted, toGold(infeasible), refused(0), unknown, func(s *seen) { s.classRefused = true }}, step{kind: cancel}},
		"or if it is gone":                              {[]change{unwanted, toGold(infeasible), refused(0), unknown, func(s *seen) { s.begun = nil }}, step{kind: cancel}},
		"a driver that cannot is told of": {[]change{wants("gold"), func(s *seen) { s.modifies = false }},
			fails(say, "the claim has a VolumeAttributesClass and driver csitest.holdfast.io cannot modify volumes: it does not announce MODIFY_VOLUME")},
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
		if next := decideModification(s, o, noon); next.kind != rest {
			t.Errorf("got %+v", next)
		}
	})
}
