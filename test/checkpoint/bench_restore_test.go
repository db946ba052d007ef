package checkpoint

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/ticket"
	"github.com/holdfast-io/holdfast/test/s3server"
)

// A restoring is a way to restore a program, with what was measured in each round.
type restoring struct {
	store, memory string
	from          fetching
	rss           int64

	fetch, sync, rootfs, criu, whole []time.Duration
}

// A restorable is a program that was checkpointed.
type restorable struct {
	*wrappedNode
	mib        string
	ways       []*restoring
	copy, cold []time.Duration
	coldDir    string
}

// BenchmarkRestore restores programs of each size from each store, in turns, and compares with a
// copy of as much memory and with a start of the same program. One iteration is one round of all
// of them.
func BenchmarkRestore(b *testing.B) {
	n := newNode(b, nil)
	w := wrap(b, n)
	w.configure(b, "600s")
	server := s3server.Start(b, s3server.Options{})
	if err := os.Mkdir(filepath.Join(server.Dir, bucket), 0o700); err != nil {
		b.Fatal(err)
	}
	var all []*restorable
	for size := range strings.SplitSeq(*sizes, ",") {
		all = append(all, w.newRestorable(b, size, server.URL()))
	}
	round := 0
	for b.Loop() {
		for _, r := range all {
			r.round(b, round)
		}
		round++
	}
	var table strings.Builder
	table.WriteString("| memory | store | images | fetch, verify, unpack | sync | root file system | CRIU | first instruction | a copy | of it | a cold start | of it | peak RSS |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		r.report(&table)
	}
	b.ReportMetric(0, "ns/op")
	fmt.Printf("%d rounds\n%s", round, &table) // The log of a benchmark is truncated.
	if *update && !b.Failed() {
		publish(b, "make bench-checkpoint: restores", table.String())
	}
}

// newRestorable starts a program with that much memory, and checkpoints it into both stores.
func (w *wrappedNode) newRestorable(b *testing.B, mib, s3 string) *restorable {
	b.Helper()
	r := &restorable{wrappedNode: w, mib: mib, coldDir: w.state + "-cold-" + mib}
	c := w.runWorkload(b, "program-"+mib, "memory=idle:"+mib)
	w.writeBenchBundle(b, r.coldDir, "/run/containerd/io.containerd.runtime.v2.task/k8s.io/"+c.ID)
	b.Cleanup(func() {
		if err := os.RemoveAll(w.path(r.coldDir)); err != nil {
			b.Error(err)
		}
	})
	s := saving{task: task{Config: w.config, ID: "of-" + mib, Containers: []runtime.Container{c}, Options: runtime.Options{Fast: true}}, Dir: b.TempDir(), Keep: true}
	for _, way := range []*restoring{{store: "local", memory: "RAM"}, {store: "local", memory: "disk"}, {store: "s3", memory: "RAM"}} {
		to := s
		if way.store == "s3" {
			to.S3 = s3
		}
		if way.memory == "disk" {
			to.ID += "-disk" // The same archive is written again, which costs little.
		}
		stored := to.save(b)
		way.from = fetching{saving: to, Digest: stored.Digest, Tickets: w.dir, Root: w.path("/"), Container: c.Name}
		if way.memory == "disk" {
			way.from.Config.MaxMemory = 0
		}
		r.ways = append(r.ways, way)
	}
	return r
}

// round takes all ways once.
func (r *restorable) round(b *testing.B, round int) {
	b.Helper()
	mib, err := strconv.Atoi(r.mib)
	if err != nil {
		b.Fatal(err)
	}
	r.copy = append(r.copy, copyMemory(b, mib<<20))
	r.cold = append(r.cold, r.coldStart(b))
	for i, way := range r.ways {
		unix.Sync() // What one way has written must not be written while the next one works.
		r.restore(b, way, fmt.Sprintf("restored-%s-%d-%d", r.mib, round, i))
		last := len(way.whole) - 1
		fmt.Printf("round %d, %s MiB, %s, images in %s: fetched in %s, restored in %s; copied in %s, started cold in %s\n", round+1, r.mib, way.store, way.memory,
			way.fetch[last], way.whole[last], r.copy[round], r.cold[round])
	}
}

// copyMemory returns how long it takes to copy so many bytes of memory that is there.
func copyMemory(b *testing.B, size int) time.Duration {
	b.Helper()
	var buffers [2][]byte
	for i := range buffers {
		buffer, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = unix.Munmap(buffer) }() // What follows needs the memory.
		buffers[i] = buffer
	}
	start := time.Now()
	copy(buffers[0], buffers[1])
	return time.Since(start)
}

// coldStart returns how long the container takes from its creation to its first line.
func (r *restorable) coldStart(b *testing.B) time.Duration {
	b.Helper()
	said := r.Run(b, r.name, "sh", "-c", fmt.Sprintf(`cd %[1]s && rm -f out && mkfifo out
		before=$(date +%%s%%N)
		runc --root %[1]s/state create --bundle %[1]s/bundle bench </dev/null >out 2>&1 &
		exec 3<out
		wait $! && runc --root %[1]s/state start bench && read line <&3
		after=$(date +%%s%%N)
		runc --root %[1]s/state delete --force bench
		echo $((after-before))`, r.coldDir))
	took, err := strconv.ParseInt(strings.TrimSpace(said), 10, 64)
	if err != nil {
		b.Fatalf("starting the program cold: %q", said)
	}
	return time.Duration(took)
}

// restore restores the program once, in a new pod.
func (r *restorable) restore(b *testing.B, way *restoring, name string) {
	b.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{ticket.Annotation: name}}}
	zero := int64(0)
	pod.Spec.TerminationGracePeriodSeconds, pod.Spec.NodeName = &zero, r.name
	pod.Spec.Containers = []corev1.Container{{Name: way.from.Container, Image: workloadImage, Command: []string{"/workload", "memory=idle:" + r.mib}}}
	pods := r.Client.CoreV1().Pods(r.Namespace)
	created, err := pods.Create(b.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	from := way.from
	from.UID, from.Request = string(created.UID), name
	var got fetched
	callSelf(b, restorerArg, &from, &got)
	if (got.OnDisk != "") != (way.memory == "disk") {
		b.Errorf("%s MiB from %s: the images are not in %s: %q", r.mib, way.store, way.memory, got.OnDisk)
	}
	way.add(&got, r.waitRestored(b, &from))
	if err := pods.Delete(b.Context(), name, metav1.DeleteOptions{}); err != nil {
		b.Fatal(err)
	}
	r.Run(b, r.name, "sh", "-c", fmt.Sprintf("cd %s/%s/%s || exit 1; umount data/%s 2>/dev/null; rm -r data", r.dir, from.UID, from.Container, ticket.ImagesName))
}

// waitRestored waits for the outcome of a restore.
func (r *restorable) waitRestored(b *testing.B, f *fetching) *ticket.Outcome {
	b.Helper()
	place, err := ticket.At(r.path(r.dir), f.UID, f.Container)
	if err != nil {
		b.Fatal(err)
	}
	var outcome *ticket.Outcome
	waitFor(b, "the container is restored", func(context.Context) (bool, error) {
		outcome, err = place.Outcome()
		return err == nil, nil
	})
	if outcome.Error != "" {
		b.Fatalf("restoring: %s", outcome.Error)
	}
	return outcome
}

func (way *restoring) add(f *fetched, o *ticket.Outcome) {
	duration := func(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
	way.fetch, way.sync = append(way.fetch, duration(f.Seconds)), append(way.sync, duration(f.SyncSeconds))
	way.rootfs, way.criu = append(way.rootfs, duration(o.RootfsSeconds)), append(way.criu, duration(o.RestoreSeconds))
	way.whole = append(way.whole, duration(f.Seconds+f.SyncSeconds)+o.Ended.Sub(f.At))
	way.rss = max(way.rss, f.RSS)
}

// report adds the medians of all ways to a table.
func (r *restorable) report(table *strings.Builder) {
	for _, way := range r.ways {
		whole := median(way.whole)
		row := []string{r.mib + " MiB", way.store, way.memory, seconds(median(way.fetch)), seconds(median(way.sync)), seconds(median(way.rootfs)),
			seconds(median(way.criu)), seconds(whole), seconds(median(r.copy)), ratio(whole, median(r.copy)), seconds(median(r.cold)), ratio(whole, median(r.cold)), mebibytes(way.rss)}
		fmt.Fprintf(table, "| %s |\n", strings.Join(row, " | "))
	}
}
