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

// newState is a VolumeAttachment that nobody has done anything about, with all that
// it needs.
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

// Changes of what is seen.
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
		"a volume is published":                                    {nil, publish, ""},
		"also an inline one":                                       {[]func(*state){inline}, publish, ""},
		"also once more, when it is on record":                     {[]func(*state){recorded}, publish, ""},
		"also when upstream's attacher began with it":              {[]func(*state){attachedByUpstream}, publish, ""},
		"an attached volume is left alone":                         {[]func(*state){recorded, isAttachedNow}, none, ""},
		"unless the driver's own list contradicts":                 {[]func(*state){recorded, isAttachedNow, resyncNeeded}, publish, ""},
		"without a driver that publishes it is attached at once":   {[]func(*state){cannotPublish}, markAttached, ""},
		"also without its volume or node":                          {[]func(*state){cannotPublish, volumeGone, nodeGone}, markAttached, ""},
		"once":                                                     {[]func(*state){cannotPublish, isAttachedNow}, none, ""},
		"but one that the driver was asked for is asked for again": {[]func(*state){recorded, cannotPublish}, publish, ""},
		"and taken from where it may be, if that is elsewhere":     {[]func(*state){recorded, cannotPublish, func(s *state) { s.nodeID = "new" }}, republish, ""},
		"an attachment of another driver is not ours":              {[]func(*state){func(s *state) { s.attachment.Spec.Attacher = "other" }}, none, ""},
		"one that is gone needs nothing":                           {[]func(*state){func(s *state) { s.attachment = nil }}, none, ""},
		"a node that was made anew under its name gets it anew":    {[]func(*state){recorded, func(s *state) { s.nodeID = "new" }}, republish, ""},
		"a volume that was made anew under its name, too":          {[]func(*state){recorded, func(s *state) { s.spec.CSI.VolumeHandle = "new" }}, republish, ""},
		"but not if nothing was asked of the driver":               {[]func(*state){recorded, func(s *state) { s.attachment.Finalizers, s.nodeID = nil, "new" }}, publish, ""},
		"an attached one stays where it is, whatever is new":       {[]func(*state){recorded, isAttachedNow, func(s *state) { s.nodeID = "new" }}, none, ""},
		"a volume that is not there is waited for":                 {[]func(*state){volumeGone}, reportProblem, "PersistentVolume pv is not there"},
		"a volume that is being deleted is not attached any more":  {[]func(*state){func(s *state) { s.volume.DeletionTimestamp = &metav1.Time{} }}, reportProblem, "is being deleted"},
		"a node without the driver is waited for":                  {[]func(*state){nodeGone}, reportProblem, "does not have driver " + driver},
		"a volume of another kind is refused":                      {[]func(*state){func(s *state) { s.spec.CSI = nil }}, reportProblem, "not one of a CSI driver"},
		"a volume of another driver is refused":                    {[]func(*state){func(s *state) { s.spec.CSI.Driver = "other" }}, reportProblem, "of driver other"},
		"a source that is nothing is refused":                      {[]func(*state){func(s *state) { s.attachment.Spec.Source = storagev1.VolumeAttachmentSource{} }}, reportProblem, "either"},
		"a source that is both is refused":                         {[]func(*state){func(s *state) { s.attachment.Spec.Source.InlineVolumeSpec = s.spec }}, reportProblem, "either"},
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
		"what is on record is taken away":                            {[]func(*state){recorded, isAttachedNow}, unpublish, ""},
		"also when the status never said that it was there":          {[]func(*state){recorded}, unpublish, ""},
		"also when the volume is gone":                               {[]func(*state){recorded, volumeGone}, unpublish, ""},
		"also when the node is gone":                                 {[]func(*state){recorded, nodeGone}, unpublish, ""},
		"also when the volume is another driver's by now":            {[]func(*state){recorded, func(s *state) { s.spec.CSI.Driver = "other" }}, unpublish, ""},
		"what upstream's attacher has attached is taken away":        {[]func(*state){attachedByUpstream}, unpublish, ""},
		"also when the node is gone since":                           {[]func(*state){attachedByUpstream, nodeGone}, unpublish, ""},
		"what has no record at all is looked up":                     {[]func(*state){hasOurFinalizer}, unpublish, ""},
		"without a record and without a node it cannot be told":      {[]func(*state){hasOurFinalizer, nodeGone}, reportProblem, "which node"},
		"without a record and without a volume neither":              {[]func(*state){attachedByUpstream, volumeGone}, reportProblem, "remove the finalizer " + finalizer},
		"what was never asked of the driver is left to go":           {nil, none, ""},
		"also when somebody else still holds the object":             {[]func(*state){func(s *state) { s.attachment.Finalizers = []string{"example.com/other"} }}, none, ""},
		"but if the driver says that it is there it is taken away":   {[]func(*state){resyncNeeded}, unpublish, ""},
		"also by a driver that says that it does not publish":        {[]func(*state){recorded, cannotPublish}, unpublish, ""},
		"what is another driver's by now is not what was attached":   {[]func(*state){attachedByUpstream, func(s *state) { s.spec.CSI.Driver = "other" }}, reportProblem, "is of driver other now"},
		"why a volume of a plugin cannot be told is said":            {[]func(*state){attachedByUpstream, notTranslatable}, reportProblem, "no such zone"},
		"but if the record says the node the volume may tell":        {[]func(*state){attachedByUpstream, notTranslatable, func(s *state) { s.fallback.handle = "vol" }}, unpublish, ""},
		"without anything of ours on the object there is no need to": {[]func(*state){cannotPublish}, none, ""},
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
		t.Errorf("of upstream's: got %+v", got)
	}
}
