package csitest

import (
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Ginkgo listens for signals until the process ends.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/onsi/ginkgo/v2/internal/interrupt_handler.(*InterruptHandler).registerForInterrupts.func2"))
}

func TestContract(t *testing.T) {
	tests := map[string]Options{
		"everything":    {},
		"with topology": {Segments: []map[string]string{{"zone": "a"}, {"zone": "b"}}},
		"volumes alone": {Controller: []csipb.ControllerServiceCapability_RPC_Type{csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}},
		"no groups":     {Group: []csipb.GroupControllerServiceCapability_RPC_Type{}},
		"no GetSnapshot": {Controller: []csipb.ControllerServiceCapability_RPC_Type{
			csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
			csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
			csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		}},
	}
	for name, opts := range tests {
		t.Run(name, func(t *testing.T) {
			d := New(opts)
			address := d.Serve(t)
			t.Run("contract", func(t *testing.T) { Contract(t, address) })
			if diff := cmp.Diff(inventory{}, inventoryOf(d)); diff != "" {
				t.Errorf("the contract left objects behind:\n%s", diff)
			}
			if overlaps := d.Overlaps(); overlaps != nil {
				t.Errorf("overlapping calls: %q", overlaps)
			}
		})
	}
}
