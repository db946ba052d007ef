package provision

import (
	"strings"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/pernode"
	"github.com/holdfast-io/holdfast/internal/topology"
)

var nodeSegment = map[string]string{"zone": "a", "host": "n1"}

// nodeOptions are those of the provisioner on node n1.
func nodeOptions() *Options {
	o := options()
	o.Node = pernode.Node{Deployed: true, Name: "n1", Segment: nodeSegment, ImmediateBinding: true, BaseDelay: time.Second, MaxDelay: time.Minute}
	return o
}

// onNode is the state in which node n1 creates a volume.
func onNode(t *testing.T) state {
	t.Helper()
	s := readyState(t)
	s.info = driverInfo(t, csitest.Options{Segments: []map[string]string{nodeSegment}})
	return s
}

// selects has the scheduler, or a node, select a node.
func selects(node string) func(*state, *Options) {
	return func(s *state, o *Options) {
		s.claim.Annotations[kube.AnnSelectedNode] = node
		s.observeOwnNode(&o.Node)
	}
}

func TestDecideOnANode(t *testing.T) {
	base := onNode(t)
	only := func(zone string) func(*state, *Options) {
		return func(s *state, _ *Options) {
			s.class.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
				{Key: "zone", Values: []string{zone}},
			}}}
		}
	}
	waits := func(s *state, _ *Options) { waitForFirstConsumer(s) }
	immediateOff := func(_ *state, o *Options) { o.Node.ImmediateBinding = false }
	wrong := func(s *state, _ *Options) { s.claim.Spec.Selector = &metav1.LabelSelector{} }
	classless := func(s *state, _ *Options) { s.class = nil }
	type changes []func(*state, *Options)
	tests := map[string]struct {
		changes changes
		want    action
	}{
		"a claim that waits for this node is served":                 {changes{waits, selects("n1")}, start},
		"a claim that waits for another node is left to that":        {changes{waits, selects("n2")}, none},
		"a claim without a selected node is left to the scheduler":   {changes{waits}, none},
		"all nodes compete for a claim that binds immediately":       {nil, claimForNode},
		"a claim that this node has got is served":                   {changes{selects("n1")}, start},
		"a claim that another node has got is left to that":          {changes{selects("n2")}, none},
		"the node competes for a claim that its class allows here":   {changes{only("a")}, claimForNode},
		"the node leaves a claim that its class does not allow here": {changes{only("b")}, none},
		"the node competes for no claims without immediate binding":  {changes{immediateOff}, none},
		"without immediate binding a claim of this node is served":   {changes{immediateOff, selects("n1")}, start},
		"without immediate binding a claim that waits is served":     {changes{waits, selects("n1"), immediateOff}, start},
		"an invalid claim of any node is reported":                   {changes{wrong}, emitEvent},
		"an invalid claim of this node is reported":                  {changes{wrong, selects("n1")}, emitEvent},
		"an invalid claim of another node is left to that":           {changes{wrong, selects("n2")}, none},
		"a missing class of a claim of this node is reported":        {changes{classless, selects("n1")}, emitEvent},
		"a missing class of a claim of another node is left to that": {changes{classless, selects("n2")}, none},
		"a claim that is gone is left alone":                         {changes{func(s *state, _ *Options) { s.claim = nil }}, none},
		"a claim that is being deleted is left alone":                {changes{func(s *state, _ *Options) { s.claim.DeletionTimestamp = &metav1.Time{} }}, none},
		"a claim that has a volume is left alone":                    {changes{func(s *state, _ *Options) { s.volume = &corev1.PersistentVolume{} }}, none},
		"a claim of another provisioner is left alone":               {changes{func(s *state, _ *Options) { s.claim.Annotations = nil }}, none},
		"an operation is resumed even if another node is selected":   {changes{func(s *state, _ *Options) { s.operation = &pending.Operation{} }, selects("n2")}, resume},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, o := base, nodeOptions()
			s.claim, s.class = base.claim.DeepCopy(), base.class.DeepCopy()
			for _, change := range tt.changes {
				change(&s, o)
			}
			if got := decide(s, o); got.action != tt.want {
				t.Errorf("got %+v, want action %d", got, tt.want)
			}
		})
	}
}

// A node's driver can create volumes on the node only, so the request has the node's
// segment, whatever else the class allows.
func TestTheRequestOfANodeHasItsSegment(t *testing.T) {
	want := &csipb.TopologyRequirement{
		Requisite: []*csipb.Topology{{Segments: nodeSegment}}, Preferred: []*csipb.Topology{{Segments: nodeSegment}},
	}
	for name, change := range map[string]func(*state){
		"for a claim that waits":            waitForFirstConsumer,
		"for a claim that binds at once":    func(*state) {},
		"for a class that allows more":      func(s *state) { s.class.AllowedTopologies = terms("zone", "a", "b") },
		"for a claim that waits, and so on": func(s *state) { waitForFirstConsumer(s); s.class.AllowedTopologies = terms("zone", "a", "b") },
	} {
		t.Run(name, func(t *testing.T) {
			s, o := onNode(t), nodeOptions()
			change(&s)
			selects("n1")(&s, o)
			i, err := plan(s, o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, i.Request.GetAccessibilityRequirements(), protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
	s, o := onNode(t), nodeOptions()
	s.class.AllowedTopologies = terms("zone", "b")
	selects("n1")(&s, o)
	if _, err := plan(s, o); err == nil || !strings.Contains(err.Error(), "allowedTopologies") {
		t.Errorf("a node that the class does not allow gets %v", err)
	}
}

// Without a node affinity Kubernetes would not know which node has the volume.
func TestAVolumeOfANodeHasANodeAffinity(t *testing.T) {
	at := func(segments map[string]string) []*csipb.Topology { return []*csipb.Topology{{Segments: segments}} }
	elsewhere := at(map[string]string{"zone": "a"})
	for name, tt := range map[string]struct {
		options    *Options
		accessible []*csipb.Topology // in the response
		want       []*csipb.Topology
	}{
		"the driver's response is used":                              {nodeOptions(), elsewhere, elsewhere},
		"without topology in the response the volume is on the node": {nodeOptions(), nil, at(nodeSegment)},
		"an empty topology in the response counts as none":           {nodeOptions(), at(nil), at(nodeSegment)},
		"a provisioner for all nodes adds no affinity":               {options(), nil, nil},
		"a provisioner for all nodes uses the driver's response":     {options(), elsewhere, elsewhere},
	} {
		t.Run(name, func(t *testing.T) {
			s := readyState(t)
			withOperation(t, &s)
			tt.options.Topology = true
			r := &Reconciler{options: tt.options}
			got, err := r.completeVolume(s.operation, &csipb.Volume{VolumeId: "vol-1", CapacityBytes: 1 << 30, AccessibleTopology: tt.accessible})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(topology.NodeAffinity(tt.want), got.Spec.NodeAffinity); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func terms(key string, values ...string) []corev1.TopologySelectorTerm {
	return []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: key, Values: values}}}}
}

func TestTheMessageNamesWhoOwnsAnOperation(t *testing.T) {
	for name, tt := range map[string]struct{ node, part string }{
		"one node":  {"n1", "node n1"},
		"all nodes": {"", "all nodes"},
	} {
		t.Run(name, func(t *testing.T) {
			op := &pending.Operation{Node: tt.node, Record: types.NamespacedName{Namespace: "ns", Name: pending.LeaseName(uid)}}
			if got := otherNodeError(op).Error(); !strings.Contains(got, tt.part) || !strings.Contains(got, "ns/provision-"+uid) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestTheCapacityRequestIsAboutTheVolume(t *testing.T) {
	s, o := onNode(t), nodeOptions()
	s.class.Parameters["csi.storage.k8s.io/fstype"] = "xfs"
	restores(&s)
	got, err := capacityRequest(s, o)
	if err != nil {
		t.Fatal(err)
	}
	selects("n1")(&s, o)
	asked, err := o.request(s, "xfs")
	if err != nil {
		t.Fatal(err)
	}
	want := &csipb.GetCapacityRequest{
		Parameters: asked.Parameters, VolumeCapabilities: asked.VolumeCapabilities, AccessibleTopology: &csipb.Topology{Segments: nodeSegment},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
