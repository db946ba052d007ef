package provision

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
)

func TestAnIntentComesBackAsItWasWritten(t *testing.T) {
	s := readyState(t)
	withOperation(t, &s)
	big := readyState(t)
	withOperation(t, &big)
	big.operation.Request.AccessibilityRequirements = &csipb.TopologyRequirement{}
	for n := range 2000 {
		place := &csipb.Topology{Segments: map[string]string{"topology.example.com/hostname": fmt.Sprint("worker-", n)}}
		big.operation.Request.AccessibilityRequirements.Requisite = append(big.operation.Request.AccessibilityRequirements.Requisite, place)
	}
	big.operation.Source = &Source{KindClaim, "team", "source"}
	big.operation.Secret = &corev1.SecretReference{Name: "s", Namespace: "n"}
	for name, i := range map[string]*Operation{"of a claim": s.operation, "of a claim in a large cluster": big.operation} {
		t.Run(name, func(t *testing.T) {
			text, err := i.encode()
			if err != nil {
				t.Fatal(err)
			}
			if limit := 128 << 10; len(text) > limit {
				t.Errorf("it takes %d bytes, and annotations together may have %d", len(text), limit)
			}
			got, err := decode(lease(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(i.Request, got.Request, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(i.Volume, got.Volume); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(i.Source, got.Source); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(i.Secret, got.Secret); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnIntentHasNoSecretsInIt(t *testing.T) {
	s := readyState(t)
	withOperation(t, &s)
	text, err := s.operation.encode()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "secrets") {
		t.Errorf("the intent has a field for secrets: %s", text)
	}
}

func TestAnIntentThatCannotBeReadIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                  "",
		"no JSON":                  "{",
		"no volume":                `{"request":{"name":"v"}}`,
		"a volume without a claim": `{"request":{"name":"v"},"volume":{"spec":{"csi":{"driver":"d"}}}}`,
		"a field that is unknown":  `{"request":{"surprise":1},"volume":{"spec":{"csi":{"driver":"d"},"claimRef":{}}}}`,
		"broken compression":       gzipPrefix + "AAAA",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := decode(lease(text)); err == nil {
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
