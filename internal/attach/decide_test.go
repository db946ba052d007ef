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

// fresh is a VolumeAttachment that nobody has done anything about, with all that
// it needs.
func fresh() seen {
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv"},
		Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
			CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "vol"},
		}},
	}
	return seen{
		publishes: true, volume: volume, spec: &volume.Spec, node: "id-of-node",
		attachment: &storagev1.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: "va"},
			Spec: storagev1.VolumeAttachmentSpec{
				Attacher: driver, NodeName: "node", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To("pv")},
			},
		},
	}
}

// Changes of what is seen.
func attachedNow(s *seen) { s.attachment.Status.Attached = true }
func deleting(s *seen)    { s.attachment.DeletionTimestamp = &metav1.Time{} }
func force(s *seen)       { s.forced = true }
func cannot(s *seen)      { s.publishes = false }
func volumeGone(s *seen)  { s.volume, s.spec = nil, nil }
func nodeGone(s *seen)    { s.node = "" }
func held(s *seen)        { s.attachment.Finalizers = []string{"example.com/other", finalizer} }
func recorded(s *seen) {
	held(s)
	s.attachment.Annotations = record{handle: "vol", node: "id-of-node"}.annotations()
}
func untranslatable(s *seen) { s.spec.CSI, s.untranslated = nil, errors.New("no such zone") }
func byUpstream(s *seen) {
	held(s)
	s.attachment.Annotations = map[string]string{nodeAnnotation: "id-of-node"}
}

func TestDecideToAttach(t *testing.T) {
	inline := func(s *seen) {
		s.attachment.Spec.Source = storagev1.VolumeAttachmentSource{InlineVolumeSpec: s.spec}
		s.volume = nil
	}
	tests := map[string]struct {
		changes []func(*seen)
		want    kind
		says    string
	}{
		"a volume is published":                                    {nil, publish, ""},
		"also an inline one":                                       {[]func(*seen){inline}, publish, ""},
		"also once more, when it is on record":                     {[]func(*seen){recorded}, publish, ""},
		"also when upstream's attacher began with it":              {[]func(*seen){byUpstream}, publish, ""},
		"an attached volume is left alone":                         {[]func(*seen){recorded, attachedNow}, rest, ""},
		"unless the driver's own list contradicts":                 {[]func(*seen){recorded, attachedNow, force}, publish, ""},
		"without a driver that publishes it is attached at once":   {[]func(*seen){cannot}, mark, ""},
		"also without its volume or node":                          {[]func(*seen){cannot, volumeGone, nodeGone}, mark, ""},
		"once":                                                     {[]func(*seen){cannot, attachedNow}, rest, ""},
		"but one that the driver was asked for is asked for again": {[]func(*seen){recorded, cannot}, publish, ""},
		"and taken from where it may be, if that is elsewhere":     {[]func(*seen){recorded, cannot, func(s *seen) { s.node = "new" }}, move, ""},
		"an attachment of another driver is not ours":              {[]func(*seen){func(s *seen) { s.attachment.Spec.Attacher = "other" }}, rest, ""},
		"one that is gone needs nothing":                           {[]func(*seen){func(s *seen) { s.attachment = nil }}, rest, ""},
		"a node that was made anew under its name gets it anew":    {[]func(*seen){recorded, func(s *seen) { s.node = "new" }}, move, ""},
		"a volume that was made anew under its name, too":          {[]func(*seen){recorded, func(s *seen) { s.spec.CSI.VolumeHandle = "new" }}, move, ""},
		"but not if nothing was asked of the driver":               {[]func(*seen){recorded, func(s *seen) { s.attachment.Finalizers, s.node = nil, "new" }}, publish, ""},
		"an attached one stays where it is, whatever is new":       {[]func(*seen){recorded, attachedNow, func(s *seen) { s.node = "new" }}, rest, ""},
		"a volume that is not there is waited for":                 {[]func(*seen){volumeGone}, refuse, "PersistentVolume pv is not there"},
		"a volume that is being deleted is not attached any more":  {[]func(*seen){func(s *seen) { s.volume.DeletionTimestamp = &metav1.Time{} }}, refuse, "is being deleted"},
		"a node without the driver is waited for":                  {[]func(*seen){nodeGone}, refuse, "does not have driver " + driver},
		"a volume of another kind is refused":                      {[]func(*seen){func(s *seen) { s.spec.CSI = nil }}, refuse, "not one of a CSI driver"},
		"a volume of another driver is refused":                    {[]func(*seen){func(s *seen) { s.spec.CSI.Driver = "other" }}, refuse, "of driver other"},
		"a source that is nothing is refused":                      {[]func(*seen){func(s *seen) { s.attachment.Spec.Source = storagev1.VolumeAttachmentSource{} }}, refuse, "either"},
		"a source that is both is refused":                         {[]func(*seen){func(s *seen) { s.attachment.Spec.Source.InlineVolumeSpec = s.spec }}, refuse, "either"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { check(t, tt.changes, tt.want, tt.says) })
	}
}

func TestDecideToDetach(t *testing.T) {
	tests := map[string]struct {
		changes []func(*seen)
		want    kind
		says    string
	}{
		"what is on record is taken away":                            {[]func(*seen){recorded, attachedNow}, unpublish, ""},
		"also when the status never said that it was there":          {[]func(*seen){recorded}, unpublish, ""},
		"also when the volume is gone":                               {[]func(*seen){recorded, volumeGone}, unpublish, ""},
		"also when the node is gone":                                 {[]func(*seen){recorded, nodeGone}, unpublish, ""},
		"also when the volume is another driver's by now":            {[]func(*seen){recorded, func(s *seen) { s.spec.CSI.Driver = "other" }}, unpublish, ""},
		"what upstream's attacher has attached is taken away":        {[]func(*seen){byUpstream}, unpublish, ""},
		"also when the node is gone since":                           {[]func(*seen){byUpstream, nodeGone}, unpublish, ""},
		"what has no record at all is looked up":                     {[]func(*seen){held}, unpublish, ""},
		"without a record and without a node it cannot be told":      {[]func(*seen){held, nodeGone}, refuse, "which node"},
		"without a record and without a volume neither":              {[]func(*seen){byUpstream, volumeGone}, refuse, "remove the finalizer " + finalizer},
		"what was never asked of the driver is left to go":           {nil, rest, ""},
		"also when somebody else still holds the object":             {[]func(*seen){func(s *seen) { s.attachment.Finalizers = []string{"example.com/other"} }}, rest, ""},
		"but if the driver says that it is there it is taken away":   {[]func(*seen){force}, unpublish, ""},
		"also by a driver that says that it does not publish":        {[]func(*seen){recorded, cannot}, unpublish, ""},
		"what is another driver's by now is not what was attached":   {[]func(*seen){byUpstream, func(s *seen) { s.spec.CSI.Driver = "other" }}, refuse, "is of driver other now"},
		"why a volume of a plugin cannot be told is said":            {[]func(*seen){byUpstream, untranslatable}, refuse, "no such zone"},
		"but if the record says the node the volume may tell":        {[]func(*seen){byUpstream, untranslatable, func(s *seen) { s.unrecorded.handle = "vol" }}, unpublish, ""},
		"without anything of ours on the object there is no need to": {[]func(*seen){cannot}, rest, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { check(t, append(tt.changes, deleting), tt.want, tt.says) })
	}
}

func check(t *testing.T, changes []func(*seen), want kind, says string) {
	t.Helper()
	s := fresh()
	for _, change := range changes {
		change(&s)
	}
	got := decide(s, options)
	if got.kind != want || !strings.Contains(got.message, says) || (got.message != "") != (want == refuse) {
		t.Errorf("got %d %q, want %d %q", got.kind, got.message, want, says)
	}
}

func TestWhatIsTakenAwayIsWhatIsOnRecord(t *testing.T) {
	secret := &corev1.SecretReference{Namespace: "ns", Name: "s"}
	s := fresh()
	s.attachment.Annotations = record{handle: "old-vol", node: "old-node", secret: secret}.annotations()
	s.spec.CSI.ControllerPublishSecretRef = &corev1.SecretReference{Namespace: "ns", Name: "new"}
	if got := s.published(); got.handle != "old-vol" || got.node != "old-node" || *got.secret != *secret {
		t.Errorf("got %+v", got)
	}
	byUpstream(&s)
	if got := s.published(); got.handle != "vol" || got.node != "id-of-node" || got.secret.Name != "new" {
		t.Errorf("of upstream's: got %+v", got)
	}
}
