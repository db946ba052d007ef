package attach

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const (
	driver    = "csitest.holdfast.io"
	finalizer = "external-attacher/csitest-holdfast-io"
)

var options = &Options{Driver: driver}

// newState is the state of a new VolumeAttachment whose volume and node exist.
func newState() state {
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv"},
		Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
			CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "vol"},
		}},
	}
	return state{
		canPublish: true, volume: volume, spec: &volume.Spec, nodeID: "id-of-node",
		attachment: &storagev1.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: "va"},
			Spec: storagev1.VolumeAttachmentSpec{
				Attacher: driver, NodeName: "node", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To("pv")},
			},
		},
	}
}

// Changes of a state.
func isAttachedNow(s *state)   { s.attachment.Status.Attached = true }
func deleting(s *state)        { s.attachment.DeletionTimestamp = &metav1.Time{} }
func resyncNeeded(s *state)    { s.resyncRequested = true }
func cannotPublish(s *state)   { s.canPublish = false }
func volumeGone(s *state)      { s.volume, s.spec = nil, nil }
func nodeGone(s *state)        { s.nodeID = "" }
func hasOurFinalizer(s *state) { s.attachment.Finalizers = []string{"example.com/other", finalizer} }
func recorded(s *state) {
	hasOurFinalizer(s)
	s.attachment.Annotations = record{handle: "vol", nodeID: "id-of-node"}.annotations()
}
func notTranslatable(s *state) { s.spec.CSI, s.translationErr = nil, errors.New("no such zone") }
func attachedByUpstream(s *state) {
	hasOurFinalizer(s)
	s.attachment.Annotations = map[string]string{nodeAnnotation: "id-of-node"}
}

func TestDecideToAttach(t *testing.T) {
	inline := func(s *state) {
		s.attachment.Spec.Source = storagev1.VolumeAttachmentSource{InlineVolumeSpec: s.spec}
		s.volume = nil
	}
	tests := map[string]struct {
		changes []func(*state)
		want    action
		says    string
	}{
		"a volume is published":                                                            {nil, publish, ""},
		"an inline volume is published":                                                    {[]func(*state){inline}, publish, ""},
		"a volume that is on record is published again":                                    {[]func(*state){recorded}, publish, ""},
		"a volume that upstream's csi-attacher recorded is published":                      {[]func(*state){attachedByUpstream}, publish, ""},
		"an attached volume is ignored":                                                    {[]func(*state){recorded, isAttachedNow}, none, ""},
		"an attached volume is published again if the driver does not list it":             {[]func(*state){recorded, isAttachedNow, resyncNeeded}, publish, ""},
		"without PUBLISH_UNPUBLISH_VOLUME it is marked as attached":                        {[]func(*state){cannotPublish}, markAttached, ""},
		"without PUBLISH_UNPUBLISH_VOLUME neither volume nor node is needed":               {[]func(*state){cannotPublish, volumeGone, nodeGone}, markAttached, ""},
		"without PUBLISH_UNPUBLISH_VOLUME an attached volume is ignored":                   {[]func(*state){cannotPublish, isAttachedNow}, none, ""},
		"a recorded volume is published even without PUBLISH_UNPUBLISH_VOLUME":             {[]func(*state){recorded, cannotPublish}, publish, ""},
		"a volume recorded on another node is moved even without PUBLISH_UNPUBLISH_VOLUME": {[]func(*state){recorded, cannotPublish, func(s *state) { s.nodeID = "new" }}, republish, ""},
		"a VolumeAttachment of another driver is ignored":                                  {[]func(*state){func(s *state) { s.attachment.Spec.Attacher = "other" }}, none, ""},
		"a VolumeAttachment that is gone is ignored":                                       {[]func(*state){func(s *state) { s.attachment = nil }}, none, ""},
		"a node with a new node ID is published to again":                                  {[]func(*state){recorded, func(s *state) { s.nodeID = "new" }}, republish, ""},
		"a PersistentVolume with a new handle is published again":                          {[]func(*state){recorded, func(s *state) { s.spec.CSI.VolumeHandle = "new" }}, republish, ""},
		"without our finalizer nothing is unpublished before":                              {[]func(*state){recorded, func(s *state) { s.attachment.Finalizers, s.nodeID = nil, "new" }}, publish, ""},
		"an attached volume is not moved to a new node ID":                                 {[]func(*state){recorded, isAttachedNow, func(s *state) { s.nodeID = "new" }}, none, ""},
		"a missing volume is reported":                                                     {[]func(*state){volumeGone}, reportProblem, "PersistentVolume pv does not exist"},
		"a volume that is being deleted is not attached":                                   {[]func(*state){func(s *state) { s.volume.DeletionTimestamp = &metav1.Time{} }}, reportProblem, "is being deleted"},
		"a node without the driver is reported":                                            {[]func(*state){nodeGone}, reportProblem, "does not have driver " + driver},
		"a volume that is not a CSI volume is reported":                                    {[]func(*state){func(s *state) { s.spec.CSI = nil }}, reportProblem, "not a CSI volume"},
		"a volume of another driver is reported":                                           {[]func(*state){func(s *state) { s.spec.CSI.Driver = "other" }}, reportProblem, "belongs to driver other"},
		"an empty source is reported":                                                      {[]func(*state){func(s *state) { s.attachment.Spec.Source = storagev1.VolumeAttachmentSource{} }}, reportProblem, "either"},
		"a source that is both is reported":                                                {[]func(*state){func(s *state) { s.attachment.Spec.Source.InlineVolumeSpec = s.spec }}, reportProblem, "either"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { check(t, tt.changes, tt.want, tt.says) })
	}
}

func TestDecideToDetach(t *testing.T) {
	tests := map[string]struct {
		changes []func(*state)
		want    action
		says    string
	}{
		"a recorded volume is unpublished":                                                {[]func(*state){recorded, isAttachedNow}, unpublish, ""},
		"a recorded volume that never was attached is unpublished":                        {[]func(*state){recorded}, unpublish, ""},
		"a recorded volume whose PersistentVolume is gone is unpublished":                 {[]func(*state){recorded, volumeGone}, unpublish, ""},
		"a recorded volume whose node is gone is unpublished":                             {[]func(*state){recorded, nodeGone}, unpublish, ""},
		"a recorded volume whose PersistentVolume has another driver now is unpublished":  {[]func(*state){recorded, func(s *state) { s.spec.CSI.Driver = "other" }}, unpublish, ""},
		"a volume that upstream's csi-attacher attached is unpublished":                   {[]func(*state){attachedByUpstream}, unpublish, ""},
		"a volume that upstream's csi-attacher attached to a deleted node is unpublished": {[]func(*state){attachedByUpstream, nodeGone}, unpublish, ""},
		"without a record the current volume and node are used":                           {[]func(*state){hasOurFinalizer}, unpublish, ""},
		"without a record and a node the node is unknown":                                 {[]func(*state){hasOurFinalizer, nodeGone}, reportProblem, "the node to detach"},
		"without a record and a volume the volume is unknown":                             {[]func(*state){attachedByUpstream, volumeGone}, reportProblem, "remove the finalizer " + finalizer},
		"a VolumeAttachment without our finalizer is ignored":                             {nil, none, ""},
		"finalizers of others do not matter":                                              {[]func(*state){func(s *state) { s.attachment.Finalizers = []string{"example.com/other"} }}, none, ""},
		"a volume that the driver lists is unpublished even without our finalizer":        {[]func(*state){resyncNeeded}, unpublish, ""},
		"a recorded volume is unpublished even without PUBLISH_UNPUBLISH_VOLUME":          {[]func(*state){recorded, cannotPublish}, unpublish, ""},
		"without a recorded volume one of another driver is not unpublished":              {[]func(*state){attachedByUpstream, func(s *state) { s.spec.CSI.Driver = "other" }}, reportProblem, "belongs to driver other now"},
		"a failed translation is reported":                                                {[]func(*state){attachedByUpstream, notTranslatable}, reportProblem, "no such zone"},
		"the translation for the recorded node is used if there is one":                   {[]func(*state){attachedByUpstream, notTranslatable, func(s *state) { s.fallback.handle = "vol" }}, unpublish, ""},
		"without PUBLISH_UNPUBLISH_VOLUME and our finalizer nothing is done":              {[]func(*state){cannotPublish}, none, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { check(t, append(tt.changes, deleting), tt.want, tt.says) })
	}
}

func check(t *testing.T, changes []func(*state), want action, says string) {
	t.Helper()
	s := newState()
	for _, change := range changes {
		change(&s)
	}
	got := decide(s, options)
	if got.action != want || !strings.Contains(got.message, says) || (got.message != "") != (want == reportProblem) {
		t.Errorf("got %d %q, want %d %q", got.action, got.message, want, says)
	}
}

func TestDetachFollowsTheRecord(t *testing.T) {
	secret := &corev1.SecretReference{Namespace: "ns", Name: "s"}
	s := newState()
	s.attachment.Annotations = record{handle: "old-vol", nodeID: "old-node", secret: secret}.annotations()
	s.spec.CSI.ControllerPublishSecretRef = &corev1.SecretReference{Namespace: "ns", Name: "new"}
	if got := s.published(); got.handle != "old-vol" || got.nodeID != "old-node" || *got.secret != *secret {
		t.Errorf("got %+v", got)
	}
	attachedByUpstream(&s)
	if got := s.published(); got.handle != "vol" || got.nodeID != "id-of-node" || got.secret.Name != "new" {
		t.Errorf("attached by upstream: got %+v", got)
	}
}
