package scale

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

const (
	claims = 300
	// budget of requests of our process for each volume that is made, and for
	// each that is deleted, events included.
	budget = 4
)

// Provisioning and deleting costs at most four requests of ours each, every
// driver call that succeeds is made once, and nothing holds the rate back.
func TestCostOfAVolume(t *testing.T) {
	w := world.New(t, csitest.Options{})
	c := newCounter(t, w.Config)
	p := w.Provisioner(t, "--kubeconfig="+c.kubeconfig)
	w.Class(t, nil)
	w.Claim(t, "first", nil) // When it is bound the process is up, and a moment later idle.
	w.Bound(t, "first")
	settled(t, c, func() int { return w.Driver.Calls(csi.CreateVolume) })

	began := time.Now()
	each(t, func(name string) { w.Claim(t, name, nil) })
	world.Eventually(t, func(ctx context.Context) error { return bound(ctx, w) })
	making := time.Since(began)
	made := settled(t, c, func() int { return w.Driver.Calls(csi.CreateVolume) })
	rss := memory(t, p.PID())

	began = time.Now()
	each(t, func(name string) { w.DropClaim(t, name) })
	world.Eventually(t, func(context.Context) error {
		if left := len(w.Driver.Volumes()); left > 1 {
			return fmt.Errorf("%d volumes are left", left)
		}
		return nil
	})
	deleting := time.Since(began)
	dropped := settled(t, c, func() int { return w.Driver.Calls(csi.DeleteVolume) })
	w.DropClaim(t, "first")
	w.NothingLeft(t)

	t.Logf("\n| phase | rate | our requests per volume | of which | driver calls per volume |\n|---|---|---|---|---|\n"+
		"| provision | %.1f/s | %.2f | %s | %.2f |\n| delete | %.1f/s | %.2f | %s | %.2f |\n\n%d volumes, one process, %d MiB RSS after provisioning",
		claims/making.Seconds(), float64(made.total())/claims, made.per(claims), float64(w.Driver.Calls(csi.CreateVolume)-1)/claims,
		claims/deleting.Seconds(), float64(dropped.total())/claims, dropped.per(claims), float64(w.Driver.Calls(csi.DeleteVolume)-1)/claims,
		claims, rss>>20)
	if n := made.total(); n > budget*claims {
		t.Errorf("%d requests for %d volumes that were made", n, claims)
	}
	if n := dropped.total(); n > budget*claims {
		t.Errorf("%d requests for %d volumes that were deleted", n, claims)
	}
	for _, method := range []csi.Method{csi.CreateVolume, csi.DeleteVolume} {
		if n := w.Driver.Calls(method); n != claims+1 {
			t.Errorf("%s was called %d times for %d volumes", method, n, claims+1)
		}
	}
}

// each does something for every claim, several at a time, as users would.
func each(t *testing.T, do func(name string)) {
	t.Helper()
	const users = 8
	var all sync.WaitGroup
	for user := range users {
		all.Go(func() {
			for n := user; n < claims; n += users {
				do("claim-" + strconv.Itoa(n))
			}
		})
	}
	all.Wait()
}

// bound tells whether all claims are.
func bound(ctx context.Context, w *world.World) error {
	list, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	n := 0
	for i := range list.Items {
		if list.Items[i].Status.Phase == "Bound" {
			n++
		}
	}
	if n < claims+1 {
		return fmt.Errorf("%d claims of %d are bound", n, claims+1)
	}
	return nil
}

// settled returns what was counted when nothing is asked for any more.
func settled(t *testing.T, c *counter, calls func() int) requests {
	t.Helper()
	sum, quiet, last := requests{}, 0, calls()
	const enough = 20 // looks without anything new, a second in all
	world.Eventually(t, func(context.Context) error {
		more := c.take()
		for what, n := range more {
			sum[what] += n
		}
		quiet++
		if len(more) > 0 || calls() != last {
			quiet, last = 0, calls()
		}
		if quiet < enough {
			return fmt.Errorf("still %d requests", sum.total())
		}
		return nil
	})
	return sum
}

// memory is the resident set of a process in bytes.
func memory(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
