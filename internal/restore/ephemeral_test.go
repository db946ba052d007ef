package restore

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/ephemeral"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// volumesState is a request to restore some containers of a pod that shares an emptyDir volume
// among all its containers, those that initialize it included.
func volumesState(saved []string, targets ...string) *state {
	mount := []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	always := corev1.ContainerRestartPolicyAlways
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		Volumes: []corev1.Volume{
			{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "claim", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}},
		},
		InitContainers: []corev1.Container{{Name: "init", VolumeMounts: mount}, {Name: "sidecar", RestartPolicy: &always}},
		Containers:     []corev1.Container{{Name: "main", VolumeMounts: mount}, {Name: "other", VolumeMounts: mount}},
	}}
	pod.UID = "uid-p"
	s := &state{pod: pod, checkpoint: &v1alpha1.Checkpoint{Status: v1alpha1.CheckpointStatus{
		Containers: []v1alpha1.ContainerCheckpoint{{Name: "main", Volumes: saved}},
	}}}
	for _, name := range []string{"init", "sidecar", "main", "other"} {
		s.containers = append(s.containers, &container{name: name, target: slices.Contains(targets, name)})
	}
	return s
}

func TestVolumesOfATicket(t *testing.T) {
	t.Parallel()
	data := ticket.Volume{Name: "data", Dir: "/kubelet/pods/uid-p/volumes/kubernetes.io~empty-dir/data"}
	shared := ticket.Volume{Name: ephemeral.SharedMemory}
	exclusive := func(v ticket.Volume) ticket.Volume {
		v.Exclusive = true
		return v
	}
	tests := map[string]struct {
		saved, targets []string
		want           []ticket.Volume
	}{
		"a Checkpoint without volumes":                           {nil, []string{"main"}, nil},
		"what another container uses keeps the other's files":    {[]string{"data", "/dev/shm"}, []string{"main"}, []ticket.Volume{data, shared}},
		"what only containers of the Checkpoint use is theirs":   {[]string{"data"}, []string{"main", "other"}, []ticket.Volume{exclusive(data)}},
		"a sidecar has the /dev/shm of the pod, too":             {[]string{"/dev/shm"}, []string{"main", "other"}, []ticket.Volume{shared}},
		"a volume that the pod has elsewhere is not overwritten": {[]string{"claim"}, []string{"main", "other"}, nil},
	}
	r := &Reconciler{options: &Options{KubeletDir: "/kubelet"}}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := volumesState(test.saved, test.targets...)
			if diff := cmp.Diff(test.want, r.volumesOf(s, s.containers[2])); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSharesIPC(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		targets []string
		want    bool
	}{
		"a sidecar that is not restored has the namespace, too": {[]string{"main", "other"}, true},
		"one that initializes the pod has ended":                {[]string{"main", "other", "sidecar"}, false},
	} {
		if got := volumesState(nil, test.targets...).sharesIPC(); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestCheckEphemeralVolumes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		saved  []string
		match  v1alpha1.RestoreMatch
		reason string
	}{
		"the pod has the volume":                       {saved: []string{"data", "/dev/shm"}},
		"the pod has no such volume":                   {saved: []string{"gone"}, reason: v1alpha1.ReasonIncompatible},
		"the pod has a claim of that name":             {saved: []string{"claim"}, reason: v1alpha1.ReasonIncompatible},
		"with match Compatible its files are left out": {saved: []string{"claim"}, match: v1alpha1.MatchCompatible},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := volumesState(test.saved, "main")
			s.policy.Match = test.match
			reason := ""
			if p := checkEphemeralVolumes(s); p != nil {
				reason = p.reason
			}
			if reason != test.reason {
				t.Errorf("%q, want %q", reason, test.reason)
			}
		})
	}
}

// A container that was restored may have run although nobody has seen it.
func TestReissuedTicketsPutVolumesBackOnceMore(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		runs string
		want bool
	}{
		"nobody uses the volume":    {"", true},
		"another container does":    {"other", false},
		"one without the volume":    {"sidecar", true},
		"the container itself does": {"main", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := volumesState([]string{"data"}, "main")
			main, err := ticket.At(t.TempDir(), "uid-p", "main")
			file := filepath.Join(main.DataDir(), ephemeral.FileName("data"))
			if err := errors.Join(err, os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, nil, 0o600), main.KeepVolume("data"),
				main.PutBack("data", func(*os.File) error { return nil })); err != nil {
				t.Fatal(err)
			}
			for _, c := range s.containers {
				c.place = main
				if c.name == test.runs {
					c.runningID = "id"
				}
			}
			r := &Reconciler{options: &Options{}, now: time.Now}
			if err := r.reissue(t.Context(), s, s.containers[2:3]); err != nil {
				t.Fatal(err)
			}
			again := false
			if err := main.PutBack("data", func(*os.File) error { again = true; return nil }); err != nil || again != test.want {
				t.Errorf("put back once more: %v, %v, want %v", again, err, test.want)
			}
		})
	}
}
