package e2e

import (
	"testing"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

// An outage of the API server that is longer than the Lease ends the leadership term,
// and nothing else.
func TestAPIServerOutageEndsOnlyTheLeadershipTerm(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := proxy.NewTCP(t, w.Config.Host)
	p := w.StartProvisioner(t, "--master=https://"+api.Address(), "--leader-election", "--leader-election-lease-duration=3s",
		"--leader-election-renew-deadline=2s", "--leader-election-retry-period=200ms")
	w.CreateClass(t, nil)
	w.CreateClaim(t, "before", nil)
	w.WaitBound(t, "before")
	api.Disconnect()
	waitForLog(t, p, "Stepped down")
	waitForLog(t, p, "Could not start a new leadership term")
	w.CreateClaim(t, "after", nil)
	api.Reconnect()
	w.WaitBound(t, "after")
	checkRunning(t, p)
	w.DeleteClaim(t, "before")
	w.DeleteClaim(t, "after")
	w.WaitNothingLeft(t)
}
