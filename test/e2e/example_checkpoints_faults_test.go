package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// twoContainers is a pod of which all containers are checkpointed at one instant.
const twoContainers = `
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: default}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: first, image: %[1]s, command: [sh, -c, "while true; do sleep 1; done"]}
  - {name: second, image: %[1]s, command: [sh, -c, "while true; do sleep 1; done"]}
`

// testAllContainers: each container has an archive, and the status says how far apart they are.
func (w *checkpointWorld) testAllContainers(t *testing.T) {
	w.apply(t, fmt.Sprintf(twoContainers, cluster.BusyboxImage))
	w.kubectl(t, "wait", "pod/two", "--for=condition=Ready", "--timeout="+world.Timeout.String())
	w.create(t, checkpointNamespace, "all-containers", func(s *v1alpha1.CheckpointSpec) {
		s.Target.PodName, s.Target.ContainerName = "two", v1alpha1.AllContainers
	})
	c := w.waitReady(t, "all-containers")
	var names []string
	for i := range c.Status.Containers {
		at := &c.Status.Containers[i]
		names = append(names, at.Name)
		w.checkDigest(t, at)
	}
	if want := []string{"first", "second"}; !slices.Equal(names, want) {
		t.Errorf("checkpointed are %q, want %q", names, want)
	}
	if skew, err := time.ParseDuration(c.Status.Skew); err != nil || skew < 0 {
		t.Errorf("the skew is %q: %v", c.Status.Skew, err)
	}
}
