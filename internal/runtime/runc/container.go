package runc

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/freezer"
)

// stateRoots are where the runtimes have the state of their containers: containerd's
// namespace for Kubernetes, then CRI-O with runc and with crun.
var stateRoots = []string{"/run/containerd/runc/k8s.io", "/run/runc", "/run/crun"}

// A target is a container on its way through a checkpoint. Paths are those of the node.
type target struct {
	runtime.Container
	root    string // of the state of runc, for its --root
	binary  string // of the OCI runtime
	pid     int    // of its first process
	start   uint64 // of that, as in /proc/PID/stat
	bundle  string
	created time.Time
	cgroup  *freezer.Cgroup
	rootfs  rootfs
	labels  map[string]string // annotations of the OCI specification
	// sharedMemory is the directory of the node that is the /dev/shm; "" if none is.
	sharedMemory string

	usage    *usage
	dir      string // of its files in the checkpoint
	layer    *layer
	volumes  []*volume
	images   string // of CRIU's images
	copied   *memoryCopy
	pages    map[string][]part // of images of pages that are merged from several files
	frozenAt time.Time
	frozen   time.Duration
}

// runcState is the part of runc's state.json that we read.
type runcState struct {
	Pid         int               `json:"init_process_pid"`
	Start       uint64            `json:"init_process_start"`
	Created     time.Time         `json:"created"`
	CgroupPaths map[string]string `json:"cgroup_paths"`
	Config      struct {
		Labels []string `json:"labels"`
	} `json:"config"`
}

// cgroup returns the control group of the container that has the freezer. The first process
// may be in one below it.
func (s *runcState) cgroup() (*freezer.Cgroup, error) {
	if dir := s.CgroupPaths["freezer"]; dir != "" {
		return freezer.At(dir)
	}
	return freezer.At(s.CgroupPaths[""])
}

// findTarget finds a container by its ID and checks that it is the one that the agent
// means.
func findTarget(c runtime.Container) (*target, error) {
	root, state, err := readState(c.ID)
	if err != nil {
		return nil, err
	}
	t := &target{Container: c, root: root, pid: state.Pid, start: state.Start, created: state.Created}
	for _, label := range state.Config.Labels {
		if bundle, ok := strings.CutPrefix(label, "bundle="); ok {
			t.bundle = bundle
		}
	}
	if err := t.checkAlive(); err != nil {
		return nil, err
	}
	if t.cgroup, err = state.cgroup(); err != nil {
		return nil, fmt.Errorf("finding the freezer of container %s: %w", c.ID, err)
	}
	if t.binary, err = ociRuntime(t.bundle); err != nil {
		return nil, err
	}
	if err := t.readSpec(); err != nil {
		return nil, err
	}
	t.rootfs, err = findRootfs(t.pid)
	return t, err
}

// readState returns where the container's state is, and the state.
func readState(id string) (string, *runcState, error) {
	for _, root := range stateRoots {
		var state runcState
		err := readJSON(filepath.Join(root, id, "state.json"), &state)
		if err == nil {
			return root, &state, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", nil, err
		}
		if _, err := os.Stat(filepath.Join(root, id, "status")); err == nil {
			return "", nil, runtime.ErrorfForEngine("container %s is run by crun, and this engine works with runc only", id)
		}
	}
	return "", nil, runtime.Errorf(runtime.ContainerNotRunning,
		"no OCI runtime of the node knows container %s (looked in %s)", id, strings.Join(stateRoots, ", "))
}

// checkAlive checks that the container's first process still is the one that it was.
func (t *target) checkAlive() error {
	start, err := startTime(t.pid)
	if errors.Is(err, os.ErrNotExist) || err == nil && start != t.start {
		return runtime.Errorf(runtime.ContainerNotRunning, "container %s (%s) has ended", t.Name, t.ID)
	}
	return err
}

// ociRuntime returns the program that runs the containers of a bundle.
func ociRuntime(bundle string) (string, error) {
	var options struct {
		BinaryName string `json:"binary_name"`
	}
	text, err := os.ReadFile(filepath.Join(bundle, "options.json"))
	if errors.Is(err, os.ErrNotExist) {
		return "runc", nil // CRI-O has no such file
	}
	if err != nil {
		return "", fmt.Errorf("reading the options of the runtime: %w", err)
	}
	if err := json.Unmarshal(text, &options); err != nil {
		return "", fmt.Errorf("reading the options of the runtime: %w", err)
	}
	if options.BinaryName == "" {
		return "runc", nil
	}
	return options.BinaryName, nil
}

// readSpec reads the identity of the container from its OCI specification and compares it.
func (t *target) readSpec() error {
	var spec struct {
		Annotations map[string]string `json:"annotations"`
		Process     struct {
			Terminal bool `json:"terminal"`
		} `json:"process"`
		Mounts []mountSpec `json:"mounts"`
	}
	if err := readJSON(filepath.Join(t.bundle, specFile), &spec); err != nil {
		return err
	}
	t.labels, t.sharedMemory = spec.Annotations, sharedMemoryOf(spec.Mounts)
	if spec.Process.Terminal {
		return runtime.Errorf(runtime.RuntimeUnsupported,
			"container %s has a terminal (tty: true), which a checkpoint cannot contain", t.Name)
	}
	identity, err := identityOf(spec.Annotations)
	if err != nil {
		return fmt.Errorf("identifying container %s: %w", t.ID, err)
	}
	wanted := runtime.Container{Namespace: t.Namespace, Pod: t.Pod, PodUID: t.PodUID, Name: t.Name}
	if identity != wanted {
		return runtime.Errorf(runtime.SourcePodReplaced, "container %s is %s of pod %s/%s (%s), not %s of pod %s/%s (%s)", t.ID,
			identity.Name, identity.Namespace, identity.Pod, identity.PodUID, t.Name, t.Namespace, t.Pod, t.PodUID)
	}
	return nil
}

// specFile is the OCI specification in a bundle.
const specFile = "config.json"

// identityOf returns the pod and the container of the annotations that containerd or
// CRI-O has written.
func identityOf(annotations map[string]string) (runtime.Container, error) {
	if name, ok := annotations["io.kubernetes.cri.container-name"]; ok {
		return runtime.Container{
			Namespace: annotations["io.kubernetes.cri.sandbox-namespace"],
			Pod:       annotations["io.kubernetes.cri.sandbox-name"],
			PodUID:    annotations["io.kubernetes.cri.sandbox-uid"],
			Name:      name,
		}, nil
	}
	var labels map[string]string
	if err := json.Unmarshal([]byte(annotations["io.kubernetes.cri-o.Labels"]), &labels); err != nil {
		return runtime.Container{}, fmt.Errorf("its OCI specification is neither containerd's nor CRI-O's: %w", err)
	}
	return runtime.Container{
		Namespace: labels["io.kubernetes.pod.namespace"],
		Pod:       labels["io.kubernetes.pod.name"],
		PodUID:    labels["io.kubernetes.pod.uid"],
		Name:      labels["io.kubernetes.container.name"],
	}, nil
}

// imageName is the image of the container as the runtime knows it.
func (t *target) imageName() string {
	if name := t.labels["io.kubernetes.cri.image-name"]; name != "" {
		return name
	}
	return t.labels["io.kubernetes.cri-o.ImageName"]
}
