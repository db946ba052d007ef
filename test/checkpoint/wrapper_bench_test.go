package checkpoint

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startLoop starts a container again and again, by runc and by the wrapper in turns, and
// prints which one it was and how many nanoseconds create and start took.
const startLoop = `cd %[1]s
for i in $(seq %[2]d); do
	for runtime in runc %[3]s; do
		before=$(date +%%s%%N)
		$runtime --root %[1]s/state create --bundle %[1]s/bundle bench </dev/null >/dev/null 2>&1 || exit 1
		$runtime --root %[1]s/state start bench || exit 1
		after=$(date +%%s%%N)
		runc --root %[1]s/state delete --force bench
		echo $(basename $runtime) $((after-before))
	done; done`

// BenchmarkWrapper measures what holdfast-runtime adds to the start of a container that
// nobody has asked to restore: milliseconds, and as a ratio to plain runc. The container has
// the specification and the files of one of Kubernetes.
func BenchmarkWrapper(b *testing.B) {
	w := wrap(b, newNode(b, nil))
	pod := w.newPod(b, "bench", "")
	c := pod.running(b, 0)
	dir := w.state + "-bench"
	b.Cleanup(func() {
		if err := os.RemoveAll(w.path(dir)); err != nil {
			b.Error(err)
		}
	})
	w.writeBenchBundle(b, dir, "/run/containerd/io.containerd.runtime.v2.task/k8s.io/"+c.ID)
	times := map[string][]time.Duration{}
	for b.Loop() {
		said := w.Run(b, w.name, "sh", "-c", fmt.Sprintf(startLoop, dir, 20, runtimeAt))
		for line := range strings.Lines(said) {
			var runtime string
			var took time.Duration
			if _, err := fmt.Sscan(line, &runtime, (*int64)(&took)); err != nil {
				b.Fatalf("%q: %v", line, err)
			}
			times[runtime] = append(times[runtime], took)
		}
	}
	plain, wrapped := median(times["runc"]).Seconds(), median(times[filepath.Base(runtimeAt)]).Seconds()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(plain*1000, "ms-runc")
	b.ReportMetric((wrapped-plain)*1000, "ms-added")
	b.ReportMetric(wrapped/plain, "x-runc")
}

// writeBenchBundle writes a bundle like another one, in a control group of its own.
func (w *wrappedNode) writeBenchBundle(b *testing.B, dir, like string) {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(w.path(like), "config.json"))
	if err != nil {
		b.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		b.Fatal(err)
	}
	linux := spec["linux"].(map[string]any)
	linux["cgroupsPath"] = filepath.Dir(linux["cgroupsPath"].(string)) + "/bench"
	spec["root"] = map[string]any{"path": like + "/rootfs"}
	if text, err = json.Marshal(spec); err != nil {
		b.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(w.path(dir), "bundle"), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.path(dir), "bundle/config.json"), text, 0o600); err != nil {
		b.Fatal(err)
	}
}
