package provision

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
)

func TestDecideWithoutIntent(t *testing.T) {
	base := ready(t)
	placed := announced(t, csitest.Options{Segments: []map[string]string{{"zone": "a"}}})
	idle := announced(t, csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_LIST_VOLUMES,
	}})
	bare := announced(t, csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	}})
	tests := map[string]struct {
		change func(*seen)
		want   kind
		says   string // part of the message, for steps that tell something
	}{
		"a claim of ours leads to an intent":           {func(*seen) {}, begin, ""},
		"a claim that is gone needs nothing":           {func(s *seen) { s.claim = nil }, rest, ""},
		"a claim that is being deleted needs nothing":  {func(s *seen) { s.claim.DeletionTimestamp = &metav1.Time{} }, rest, ""},
		"a claim that has a volume needs nothing":      {func(s *seen) { s.claim.Spec.VolumeName = "other" }, rest, ""},
		"a claim whose volume waits to be bound rests": {func(s *seen) { s.volume = &corev1.PersistentVolume{} }, rest, ""},
		"a claim for another provisioner is left alone": {func(s *seen) {
			s.claim.Annotations[kube.AnnStorageProvisioner] = "other"
		}, rest, ""},
		"a claim that nobody was asked to serve is left alone": {func(s *seen) { s.claim.Annotations = nil }, rest, ""},
		"the old annotation asks too": {func(s *seen) {
			s.claim.Annotations = map[string]string{kube.AnnBetaStorageProvisioner: "storage.example.com/csi"}
		}, begin, ""},
		"the new annotation comes before the old one": {func(s *seen) {
			s.claim.Annotations[kube.AnnBetaStorageProvisioner] = "other"
		}, begin, ""},
		"a claim that was migrated to the driver is served": {func(s *seen) {
			s.claim.Annotations = map[string]string{kube.AnnMigratedTo: "csitest.holdfast.io"}
		}, begin, ""},
		"a claim that was migrated to another driver is left alone": {func(s *seen) {
			s.claim.Annotations = map[string]string{kube.AnnMigratedTo: "other"}
		}, rest, ""},
		"a class of another provisioner is left alone": {func(s *seen) { s.class.Provisioner = "other" }, rest, ""},
		"a missing class is told":                      {func(s *seen) { s.class = nil }, say, `StorageClass "fast" of the claim does not exist`},
		"a selector is refused":                        {func(s *seen) { s.claim.Spec.Selector = &metav1.LabelSelector{} }, say, "remove it"},
		"a driver that cannot create volumes is told":  {func(s *seen) { s.info = idle }, say, "CREATE_DELETE_VOLUME"},
		"a late claim waits for the scheduler":         {late, rest, ""},
		"a late claim with a node leads to an intent":  {func(s *seen) { late(s); s.claim.Annotations[kube.AnnSelectedNode] = "n1" }, begin, ""},
		"the alpha annotation selects a node too":      {func(s *seen) { late(s); s.claim.Annotations[kube.AnnAlphaSelectedNode] = "n1" }, begin, ""},
		"a selected node that is gone is given back where place matters": {func(s *seen) {
			late(s)
			s.info, s.claim.Annotations[kube.AnnSelectedNode] = placed, "n1"
		}, moveOn, "node n1"},
		"a selected node that is there leads to an intent": {func(s *seen) {
			late(s)
			s.info, s.claim.Annotations[kube.AnnSelectedNode], s.selected = placed, "n1", &place{name: "n1"}
		}, begin, ""},
		"another's data source is left to its populator": {func(s *seen) {
			s.claim.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To("example.com"), Kind: "Backup", Name: "b"}
		}, say, "populator"},
		"a snapshot is restored":                                           {restores, begin, ""},
		"a claim is cloned":                                                {clones, begin, ""},
		"a snapshot is not restored by a driver that cannot":               {func(s *seen) { restores(s); s.info = bare }, say, "CREATE_DELETE_SNAPSHOT"},
		"a claim is not cloned by a driver that cannot":                    {func(s *seen) { clones(s); s.info = bare }, say, "CLONE_VOLUME"},
		"a claim of another namespace is cloned":                           {clonesAbroad, begin, ""},
		"an attributes class is followed":                                  {attributes, begin, ""},
		"an attributes class is not passed over by a driver that has none": {func(s *seen) { attributes(s); s.info = bare }, say, "MODIFY_VOLUME"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := base
			s.claim, s.class = base.claim.DeepCopy(), base.class.DeepCopy()
			tt.change(&s)
			got := decide(s, options())
			if got.kind != tt.want || !strings.Contains(got.message, tt.says) {
				t.Errorf("got %+v, want kind %d that says %q", got, tt.want, tt.says)
			}
			if (got.kind == say || got.kind == moveOn) != (got.message != "") {
				t.Errorf("kind %d with message %q", got.kind, got.message)
			}
		})
	}
}

func restores(s *seen) {
	s.claim.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ptr.To("snapshot.storage.k8s.io"), Kind: "VolumeSnapshot", Name: "before"}
}

func clones(s *seen) {
	s.claim.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "source"}
}

func clonesAbroad(s *seen) {
	s.claim.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "source", Namespace: ptr.To("other")}
}

func TestDecideLeavesOutWhatIsSwitchedOff(t *testing.T) {
	s, o := ready(t), options()
	clonesAbroad(&s)
	o.CrossNamespace = false
	if got := decide(s, o); got.kind != say || got.reason != kube.ReasonProvisioningFailed || !strings.Contains(got.message, "CrossNamespaceVolumeDataSource") {
		t.Errorf("a source in another namespace: got %+v", got)
	}
	clones(&s)
	if got := decide(s, o); got.kind != begin {
		t.Errorf("a source in the claim's namespace: got %+v", got)
	}
	s = ready(t)
	attributes(&s)
	s.info, o.Attributes = announced(t, csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	}}), false
	if got := decide(s, o); got.kind != begin || o.attributesClass(s.claim) != "" {
		t.Errorf("an attributes class: got %+v", got)
	}
}

func attributes(s *seen) { s.claim.Spec.VolumeAttributesClassName = ptr.To("gold") }

func TestDecideTellsWhichClassesMayBeServed(t *testing.T) {
	s, o := ready(t), options()
	o.Classes = []string{"slow", "fast"}
	if got := decide(s, o); got.kind != begin {
		t.Errorf("a listed class: got %+v", got)
	}
	o.Classes = []string{"slow"}
	got := decide(s, o)
	if got.kind != say || got.reason != kube.ReasonProvisioningFailed || !strings.Contains(got.message, "--storageclass-whitelist") {
		t.Errorf("a class that is not listed: got %+v", got)
	}
}

func TestDecideWithIntent(t *testing.T) {
	base := ready(t)
	begun(t, &base)
	tests := map[string]struct {
		change func(*seen)
		want   kind
	}{
		"an intent is carried out":                        {func(*seen) {}, carry},
		"also when the claim is gone":                     {func(s *seen) { s.claim = nil }, carry},
		"also when the claim is being deleted":            {func(s *seen) { s.claim.DeletionTimestamp = &metav1.Time{} }, carry},
		"also when the claim was given another volume":    {func(s *seen) { s.claim.Spec.VolumeName = "other" }, carry},
		"also when another claim has taken the name":      {func(s *seen) { s.claim.UID = "new" }, carry},
		"also when the class is gone":                     {func(s *seen) { s.class = nil }, carry},
		"also when the driver has lost its capabilities":  {func(s *seen) { s.info = csi.Info{} }, carry},
		"also when a volume can be seen, it may be going": {published, carry},
		"also when the claim names a volume":              {func(s *seen) { s.claim.Spec.VolumeName = "pvc-" + uid }, carry},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := base
			s.claim = base.claim.DeepCopy()
			tt.change(&s)
			if got := decide(s, options()); got.kind != tt.want {
				t.Errorf("got %+v, want kind %d", got, tt.want)
			}
		})
	}
}
