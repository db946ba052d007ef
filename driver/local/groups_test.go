package local

import (
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// A sidecar that sees the group service requests its capabilities, so a process
// without that service must not report it.
func TestGroupServiceIsReportedWhereItIsServed(t *testing.T) {
	for service, want := range map[string]bool{allServices: true, controllerService: true, publishService: false, nodeService: false} {
		o := &Options{Attach: true, Services: service}
		got := slices.ContainsFunc(o.pluginCapabilities(), func(c *csi.PluginCapability) bool {
			return c.GetService().GetType() == csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE
		})
		if got != want {
			t.Errorf("--services=%s: announced %t", service, got)
		}
	}
}
