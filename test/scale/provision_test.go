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
	// budget of requests of the process for each volume that is created, and for each that
	// is deleted, including events.
	budget = 4
	// memoryBudget is the resident memory of one process with that many volumes.
	memoryBudget = 60 << 20
)

// Creating and deleting a volume costs at most four requests each. Every successful
// driver call is made once, the process stays within its memory budget, and nothing
// limits the rate.
func TestCostOfAVolume(t *testing.T) {
	w := world.New(t, csitest.Options{})
	s := startProvisioner(t, w)
	w.CreateClass(t, nil)
	w.CreateClaim(t, "first", nil) // Once it is bound the process has started, and a moment later it is idle.
	w.WaitBound(t, "first")
	s.waitIdle(t)

	var published time.Duration
	busy := -s.metric(t, metricReconcileTime)
	made := s.measure(t, claims, func() {
		began := time.Now()
		inParallel(claims, func(n int) { w.CreateClaim(t, claimName(n), nil) })
		s.waitCalls(t, 1, claims)
		published = time.Since(began)
		world.Eventually(t, func(ctx context.Context) error { return checkBound(ctx, w, claims+1) })
	})
	busy += s.metric(t, metricReconcileTime)
	took := memoryOf(t, s.PID())
	dropped := s.measure(t, claims, func() {
		inParallel(claims, func(n int) { w.DeleteClaim(t, claimName(n)) })
		world.Eventually(t, func(context.Context) error {
			if left := len(w.Driver.Volumes()); left > 1 {
				return fmt.Errorf("%d volumes are left", left)
			}
			return nil
		})
	})
	w.DeleteClaim(t, "first")
	w.WaitNothingLeft(t)

	made.checkBudget(t, budget)
	dropped.checkBudget(t, budget)
	for _, method := range []csi.Method{csi.CreateVolume, csi.DeleteVolume} {
		if n := w.Driver.Calls(method); n != claims+1 {
			t.Errorf("%s was called %d times for %d volumes", method, n, claims+1)
		}
	}
	if took.resident > memoryBudget {
		t.Errorf("%s with %d volumes, more than %d MiB", took, claims, memoryBudget>>20)
	}
	publishTable(t, "make bench", costTable(made, dropped, took)+fmt.Sprintf(
		"\nFrom the first claim to the last volume: %.1f a second. From the annotated claim to its volume: %.0f ms.\n",
		claims/published.Seconds(), busy*1000/claims))
}

// costTable is for a process of role csi-provisioner. The CPU time and memory of
// upstream are of five processes, including csi-provisioner.
func costTable(made, dropped *cost, took memoryUse) string {
	return comparisonTable("300 claims",
		tableRow{"claims bound a second", figure("%.1f", made.perSecond()), "59.5", "5.3"},
		tableRow{"requests for one", figure("%.2f", made.requestsEach()), "3.0", ""},
		tableRow{"driver calls for one", figure("%.2f", made.callsEach()), "", ""},
		tableRow{"ms of CPU for one", figure("%.2f", made.cpuEach()), "4.87 (five processes)", ""},
		tableRow{"volumes deleted a second", figure("%.1f", dropped.perSecond()), "52.0", "2.1"},
		tableRow{"requests for one", figure("%.2f", dropped.requestsEach()), "5.9", ""},
		tableRow{"driver calls for one", figure("%.2f", dropped.callsEach()), "1.54 (of 3,000)", ""},
		tableRow{"ms of CPU for one", figure("%.2f", dropped.cpuEach()), "6.80 (five processes)", ""},
		tableRow{"memory with 300 volumes", took.String(), "310 MiB RSS (five processes)", ""}) +
		fmt.Sprintf("\nRequests for creating a volume: %s; for deleting it: %s.\n", made.requests.PerObject(claims), dropped.requests.PerObject(claims))
}

func claimName(n int) string { return "claim-" + strconv.Itoa(n) }

// inParallel does something n times, several at a time, as users would.
func inParallel(n int, do func(n int)) {
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

// checkBound checks that n claims are bound.
func checkBound(ctx context.Context, w *world.World, want int) error {
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
		return fmt.Errorf("%d of %d claims are bound", n, want)
	}
	return nil
}
