package pending

import (
	"fmt"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/holdfast-io/holdfast/internal/provision/source"
)

func TestAnOperationIsReadAsItWasWritten(t *testing.T) {
	small, big := operation(), operation()
	big.Request.AccessibilityRequirements = &csipb.TopologyRequirement{}
	for n := range 2000 {
		segment := &csipb.Topology{Segments: map[string]string{"topology.example.com/hostname": fmt.Sprint("worker-", n)}}
		big.Request.AccessibilityRequirements.Requisite = append(big.Request.AccessibilityRequirements.Requisite, segment)
	}
	big.Source = &source.Source{Kind: source.KindClaim, Namespace: "team", Name: "source"}
	big.Secret = &corev1.SecretReference{Name: "s", Namespace: "n"}
	for name, op := range map[string]*Operation{"of a claim": small, "of a claim in a large cluster": big} {
		t.Run(name, func(t *testing.T) {
			text, err := op.encode()
			if err != nil {
				t.Fatal(err)
			}
			if limit := 128 << 10; len(text) > limit {
				t.Errorf("it takes %d bytes, and annotations together may have %d", len(text), limit)
			}
			got, err := decode(lease(text), driver)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(op.Request, got.Request, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(op.Volume, got.Volume); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(op.Source, got.Source); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(op.Secret, got.Secret); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestARecordHasNoSecrets(t *testing.T) {
	text, err := operation().encode()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "secrets") {
		t.Errorf("the record has a field for secrets: %s", text)
	}
}

func TestARecordThatCannotBeReadIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                  "",
		"no JSON":                  "{",
		"no volume":                `{"request":{"name":"v"}}`,
		"a volume without a claim": `{"request":{"name":"v"},"volume":{"spec":{"csi":{"driver":"d"}}}}`,
		"a field that is unknown":  `{"request":{"surprise":1},"volume":{"spec":{"csi":{"driver":"d"},"claimRef":{}}}}`,
		"broken compression":       gzipPrefix + "AAAA",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := decode(lease(text), driver); err == nil {
				t.Errorf("read as %+v", got)
			} else if !strings.Contains(err.Error(), "ns/provision-"+uid) {
				t.Errorf("the error does not name the Lease: %v", err)
			}
		})
	}
}

func lease(text string) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: LeaseName(uid), Annotations: map[string]string{operationAnnotation: text},
	}}
}

func TestAProvisionerSeesItsOwnOperationsOnly(t *testing.T) {
	long := strings.Repeat("n", 253)
	written := func(node string) labels.Set {
		return NewStore(Options{Driver: driver, Node: node}).leaseLabels(&Operation{Source: &source.Source{Kind: source.KindSnapshot, Namespace: "team", Name: "s"}})
	}
	for name, tt := range map[string]struct {
		node, of string
		want     bool
	}{
		"a node sees its own":                           {"n1", "n1", true},
		"not another node's":                            {"n1", "n2", false},
		"not those of a provisioner for all nodes":      {"n1", "", false},
		"a provisioner for all nodes sees its own":      {"", "", true},
		"not a node's":                                  {"", "n1", false},
		"a node with a long name sees its own":          {long, long, true},
		"not those of one whose name begins like it":    {long, long[1:], false},
		"not those of one with the hash of it for name": {long, nodeLabelValue(long), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := OwnSelector(driver, tt.node).Matches(written(tt.of)); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
	if OwnSelector("other.example.com", "n1").Matches(written("n1")) || OwnSelector("csitest-holdfast-io", "n1").Matches(written("n1")) {
		t.Error("another driver's provisioner sees it too")
	}
}

func TestAnOperationIsOfTheNodeOfItsLease(t *testing.T) {
	text, err := operation().encode()
	if err != nil {
		t.Fatal(err)
	}
	recorded := lease(text)
	recorded.Annotations[nodeAnnotation] = "n1"
	for name, tt := range map[string]struct {
		lease *coordinationv1.Lease
		node  string
	}{
		"one node":  {recorded, "n1"},
		"all nodes": {lease(text), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if op, err := decode(tt.lease, driver); err != nil || op.Node != tt.node {
				t.Fatalf("it is of node %q, %v", op.Node, err)
			}
		})
	}
}
