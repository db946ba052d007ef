package provision

import (
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/placement"
)

func TestDecideWithoutOperation(t *testing.T) {
	base := readyState(t)
	placed := driverInfo(t, csitest.Options{Segments: []map[string]string{{"zone": "a"}}})
	idle := driverInfo(t, csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_LIST_VOLUMES,
	}})
	bare := driverInfo(t, csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	}})
	tests := map[string]struct {
		change  func(*state)
		want    action
		message string // part of the message, for decisions with an event
	}{
		"a claim of ours starts an operation":                              {func(*state) {}, start, ""},
		"a claim that is gone needs nothing":                               {func(s *state) { s.claim = nil }, none, ""},
		"a claim that is being deleted needs nothing":                      {func(s *state) { s.claim.DeletionTimestamp = &metav1.Time{} }, none, ""},
		"a claim that has a volume needs nothing":                          {func(s *state) { s.claim.Spec.VolumeName = "other" }, none, ""},
		"a claim whose volume is to be bound is left to the PV controller": {func(s *state) { s.volume = &corev1.PersistentVolume{} }, none, ""},
		"a claim for another provisioner is left alone": {func(s *state) {
			s.claim.Annotations[kube.AnnStorageProvisioner] = "other"
		}, none, ""},
		"a claim without a provisioner is left alone": {func(s *state) { s.claim.Annotations = nil }, none, ""},
		"the beta annotation counts too": {func(s *state) {
			s.claim.Annotations = map[string]string{kube.AnnBetaStorageProvisioner: "storage.example.com/csi"}
		}, start, ""},
		"the annotation comes before the beta one": {func(s *state) {
			s.claim.Annotations[kube.AnnBetaStorageProvisioner] = "other"
		}, start, ""},
		"a claim that was migrated to the driver is served": {func(s *state) {
			s.claim.Annotations = map[string]string{kube.AnnMigratedTo: "csitest.holdfast.io"}
		}, start, ""},
		"a claim that was migrated to another driver is left alone": {func(s *state) {
			s.claim.Annotations = map[string]string{kube.AnnMigratedTo: "other"}
		}, none, ""},
		"a class of another provisioner is left alone": {func(s *state) { s.class.Provisioner = "other" }, none, ""},
		"a missing class is reported":                  {func(s *state) { s.class = nil }, emitEvent, `StorageClass "fast" of the claim does not exist`},
		"a selector is rejected":                       {func(s *state) { s.claim.Spec.Selector = &metav1.LabelSelector{} }, emitEvent, "remove it"},
		"a size that no volume can have is rejected": {func(s *state) {
			s.claim.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("20E")}
		}, emitEvent, "20E is too much"},
		"a limit is not for the driver, so it may be any": {func(s *state) {
			s.claim.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("20E")}
		}, start, ""},
		"a driver that cannot create volumes is reported":                        {func(s *state) { s.info = idle }, emitEvent, "CREATE_DELETE_VOLUME"},
		"a claim that waits for its first consumer is left to the scheduler":     {waitForFirstConsumer, none, ""},
		"a claim that waits for its first consumer is served once it has a node": {func(s *state) { waitForFirstConsumer(s); s.claim.Annotations[kube.AnnSelectedNode] = "n1" }, start, ""},
		"the alpha annotation selects a node too":                                {func(s *state) { waitForFirstConsumer(s); s.claim.Annotations[kube.AnnAlphaSelectedNode] = "n1" }, start, ""},
		"a selected node that is gone is given back if the driver has topology": {func(s *state) {
			waitForFirstConsumer(s)
			s.info, s.claim.Annotations[kube.AnnSelectedNode] = placed, "n1"
		}, reschedule, "node n1"},
		"a selected node that exists starts an operation": {func(s *state) {
			waitForFirstConsumer(s)
			s.info, s.claim.Annotations[kube.AnnSelectedNode], s.selected = placed, "n1", &placement.NodeTopology{Name: "n1"}
		}, start, ""},
		"a data source of another kind is left to its populator": {func(s *state) {
			s.claim.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To("example.com"), Kind: "Backup", Name: "b"}
		}, emitEvent, "populator"},
		"a snapshot is restored":                                 {restores, start, ""},
		"a claim is cloned":                                      {clones, start, ""},
		"a snapshot is not restored by a driver that cannot":     {func(s *state) { restores(s); s.info = bare }, emitEvent, "CREATE_DELETE_SNAPSHOT"},
		"a claim is not cloned by a driver that cannot":          {func(s *state) { clones(s); s.info = bare }, emitEvent, "CLONE_VOLUME"},
		"a claim of another namespace is cloned":                 {clonesAbroad, start, ""},
		"an attributes class is followed":                        {attributes, start, ""},
		"an attributes class is reported if the driver has none": {func(s *state) { attributes(s); s.info = bare }, emitEvent, "MODIFY_VOLUME"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := base
			s.claim, s.class = base.claim.DeepCopy(), base.class.DeepCopy()
			tt.change(&s)
			got := decide(s, options())
			if got.action != tt.want || !strings.Contains(got.message, tt.message) {
				t.Errorf("got %+v, want action %d with message %q", got, tt.want, tt.message)
			}
			if (got.action == emitEvent || got.action == reschedule) != (got.message != "") {
				t.Errorf("action %d with message %q", got.action, got.message)
			}
		})
	}
}

func restores(s *state) {
	s.claim.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ptr.To("snapshot.storage.k8s.io"), Kind: "VolumeSnapshot", Name: "before"}
}

func clones(s *state) {
	s.claim.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "source"}
}

func clonesAbroad(s *state) {
	s.claim.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "source", Namespace: ptr.To("other")}
}

func TestDecideIgnoresWhatIsSwitchedOff(t *testing.T) {
	s, o := readyState(t), options()
	clonesAbroad(&s)
	o.CrossNamespace = false
	if got := decide(s, o); got.action != emitEvent || got.reason != kube.ReasonProvisioningFailed || !strings.Contains(got.message, "CrossNamespaceVolumeDataSource") {
		t.Errorf("a source in another namespace: got %+v", got)
	}
	clones(&s)
	if got := decide(s, o); got.action != start {
		t.Errorf("a source in the claim's namespace: got %+v", got)
	}
	s = readyState(t)
	attributes(&s)
	s.info, o.Attributes = driverInfo(t, csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	}}), false
	if got := decide(s, o); got.action != start || o.attributesClass(s.claim) != "" {
		t.Errorf("an attributes class: got %+v", got)
	}
}

func attributes(s *state) { s.claim.Spec.VolumeAttributesClassName = ptr.To("gold") }

func TestDecideServesOnlySelectedClasses(t *testing.T) {
	s, o := readyState(t), options()
	o.Classes = []string{"slow", "fast"}
	if got := decide(s, o); got.action != start {
		t.Errorf("a listed class: got %+v", got)
	}
	o.Classes = []string{"slow"}
	got := decide(s, o)
	if got.action != emitEvent || got.reason != kube.ReasonProvisioningFailed || !strings.Contains(got.message, "--storageclass-whitelist") {
		t.Errorf("a class that is not listed: got %+v", got)
	}
}

func TestDecideWithOperation(t *testing.T) {
	base := readyState(t)
	withOperation(t, &base)
	tests := map[string]struct {
		change func(*state)
		want   action
	}{
		"an operation is resumed":                                                    {func(*state) {}, resume},
		"an operation is resumed when the claim is gone":                             {func(s *state) { s.claim = nil }, resume},
		"an operation is resumed when the claim is being deleted":                    {func(s *state) { s.claim.DeletionTimestamp = &metav1.Time{} }, resume},
		"an operation is resumed when the claim was given another volume":            {func(s *state) { s.claim.Spec.VolumeName = "other" }, resume},
		"an operation is resumed when another claim has taken the name":              {func(s *state) { s.claim.UID = "new" }, resume},
		"an operation is resumed when the class is gone":                             {func(s *state) { s.class = nil }, resume},
		"an operation is resumed when the driver has lost its capabilities":          {func(s *state) { s.info = csi.Info{} }, resume},
		"an operation is resumed when its volume exists, which may be being deleted": {withVolume, resume},
		"an operation is resumed when the claim names a volume":                      {func(s *state) { s.claim.Spec.VolumeName = "pvc-" + uid }, resume},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := base
			s.claim = base.claim.DeepCopy()
			tt.change(&s)
			if got := decide(s, options()); got.action != tt.want {
				t.Errorf("got %+v, want action %d", got, tt.want)
			}
		})
	}
}
