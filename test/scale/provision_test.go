package scale

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
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
	// memoryBudget is what one process may have resident with that many volumes.
	memoryBudget = 60 << 20
)

// Provisioning and deleting costs at most four requests of ours each, every
// driver call that succeeds is made once, one process stays below its memory
// budget, and nothing holds the rate back.
func TestCostOfAVolume(t *testing.T) {
	w := world.New(t, csitest.Options{})
	s := startSubject(t, w)
	w.Class(t, nil)
	w.Claim(t, "first", nil) // When it is bound the process is up, and a moment later idle.
	w.Bound(t, "first")
	s.settled(t)

	var published time.Duration
	busy := -s.metric(t, metricBusy)
	made := s.phase(t, claims, func() {
		began := time.Now()
		each(claims, func(n int) { w.Claim(t, claimName(n), nil) })
		s.calledSince(t, 1, claims)
		published = time.Since(began)
		world.Eventually(t, func(ctx context.Context) error { return bound(ctx, w, claims+1) })
	})
	busy += s.metric(t, metricBusy)
	took := memory(t, s.PID())
	dropped := s.phase(t, claims, func() {
		each(claims, func(n int) { w.DropClaim(t, claimName(n)) })
		world.Eventually(t, func(context.Context) error {
			if left := len(w.Driver.Volumes()); left > 1 {
				return fmt.Errorf("%d volumes are left", left)
			}
			return nil
		})
	})
	w.DropClaim(t, "first")
	w.NothingLeft(t)

	made.within(t, budget)
	dropped.within(t, budget)
	for _, method := range []csi.Method{csi.CreateVolume, csi.DeleteVolume} {
		if n := w.Driver.Calls(method); n != claims+1 {
			t.Errorf("%s was called %d times for %d volumes", method, n, claims+1)
		}
	}
	if took.resident > memoryBudget {
		t.Errorf("%s with %d volumes, more than %d MiB", took, claims, memoryBudget>>20)
	}
	publish(t, "make bench", costTable(made, dropped, took)+fmt.Sprintf(
		"\nFrom the first claim to the last volume: %.1f a second. From a claim that Kubernetes has handed over to its volume: %.0f ms.\n",
		claims/published.Seconds(), busy*1000/claims))
}

// costTable is about a process of role csi-provisioner; the peers' processor
// time and memory are of five processes, of which csi-provisioner is one.
func costTable(made, dropped *cost, took footprint) string {
	return sideBySide("300 claims",
		line{"claims bound a second", figure("%.1f", made.rate()), "59.5", "5.3"},
		line{"requests for one", figure("%.2f", made.requestsEach()), "4.0", ""},
		line{"driver calls for one", figure("%.2f", made.callsEach()), "", ""},
		line{"ms of processor for one", figure("%.2f", made.cpuEach()), "4.87 (five processes)", ""},
		line{"volumes deleted a second", figure("%.1f", dropped.rate()), "52.0", "2.1"},
		line{"requests for one", figure("%.2f", dropped.requestsEach()), "5.9", ""},
		line{"driver calls for one", figure("%.2f", dropped.callsEach()), "1.54 (of 3,000)", ""},
		line{"ms of processor for one", figure("%.2f", dropped.cpuEach()), "6.80 (five processes)", ""},
		line{"memory with 300 volumes", took.String(), "310 MiB RSS (five processes)", ""}) +
		fmt.Sprintf("\nRequests for a volume that is made: %s; that is deleted: %s.\n", made.requests.Per(claims), dropped.requests.Per(claims))
}

func claimName(n int) string { return "claim-" + strconv.Itoa(n) }

// each does something n times, several at a time, as users would.
func each(n int, do func(n int)) {
	const users = 8
	var all sync.WaitGroup
	for user := range users {
		all.Go(func() {
			for i := user; i < n; i += users {
				do(i)
			}
		})
	}
	all.Wait()
}

// bound tells whether n claims are.
func bound(ctx context.Context, w *world.World, want int) error {
	list, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	n := 0
	for i := range list.Items {
		if list.Items[i].Status.Phase == corev1.ClaimBound {
			n++
		}
	}
	if n < want {
		return fmt.Errorf("%d claims of %d are bound", n, want)
	}
	return nil
}
