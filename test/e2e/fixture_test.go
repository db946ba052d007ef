package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/cluster"
)

const (
	// patience is how long anything may take on a slow machine.
	patience = 2 * time.Minute
	pulse    = 50 * time.Millisecond
)

// A world is a cluster with a driver that keeps score, under a name of its own
// so that tests do not see each other's claims.
type world struct {
	*cluster.Cluster
	driver *csitest.Driver
	name   string // of the driver
	socket string
}

func newWorld(t *testing.T, o csitest.Options) *world {
	t.Helper()
	c := cluster.New(t)
	o.Name = "csitest." + c.Namespace + ".example.com"
	driver := csitest.New(o)
	return &world{Cluster: c, driver: driver, name: o.Name, socket: driver.Serve(t)}
}

// A process is the program under test in one of its roles.
type process struct {
	cmd  *exec.Cmd
	log  *buffer
	done chan error
}

// provisioner starts role csi-provisioner, called under that name.
func (w *world) provisioner(t *testing.T, args ...string) *process {
	t.Helper()
	args = append([]string{"--kubeconfig=" + w.Kubeconfig, "--csi-address=" + w.socket, "--leader-election-namespace=" + w.Namespace}, args...)
	p := &process{cmd: exec.Command(filepath.Join(programs, "holdfast")), log: &buffer{}, done: make(chan error, 1)}
	p.cmd.Args = append([]string{"csi-provisioner"}, args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Env = append(os.Environ(), "KUBECONFIG=")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the provisioner said:\n%s", p.log)
		}
	})
	return p
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	if err := p.cmd.Process.Kill(); errors.Is(err, os.ErrProcessDone) {
		return
	}
	p.done <- <-p.done
}

// buffer collects what a process says.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// class makes a StorageClass of the test's own.
func (w *world) class(t *testing.T, change func(*storagev1.StorageClass)) *storagev1.StorageClass {
	t.Helper()
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}, Provisioner: w.name}
	if change != nil {
		change(class)
	}
	made, err := w.Client.StorageV1().StorageClasses().Create(t.Context(), class, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.dropClass(context.Background(), t, made.Name) })
	return made
}

func (w *world) dropClass(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	err := w.Client.StorageV1().StorageClasses().Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// claim makes a claim of the test's class for 1 GiB.
func (w *world) claim(t *testing.T, name string, change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	t.Helper()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: ptr.To(w.Namespace),
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	if change != nil {
		change(claim)
	}
	made, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Create(t.Context(), claim, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (w *world) dropClaim(t *testing.T, name string) {
	t.Helper()
	if err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// bound waits until a claim is bound and returns its volume.
func (w *world) bound(t *testing.T, name string) *corev1.PersistentVolume {
	t.Helper()
	var claim *corev1.PersistentVolumeClaim
	eventually(t, func(ctx context.Context) (err error) {
		claim, err = w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && claim.Status.Phase != corev1.ClaimBound {
			err = fmt.Errorf("claim %s is %s", name, claim.Status.Phase)
		}
		return err
	})
	volume, err := w.Client.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return volume
}

// volumes are the PersistentVolumes of the test's driver.
func (w *world) volumes(ctx context.Context) ([]corev1.PersistentVolume, error) {
	list, err := w.Client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var own []corev1.PersistentVolume
	for _, v := range list.Items {
		if v.Spec.CSI != nil && v.Spec.CSI.Driver == w.name {
			own = append(own, v)
		}
	}
	return own, nil
}

// nothingLeft waits until neither the cluster nor the driver has anything of
// the test's claims.
func (w *world) nothingLeft(t *testing.T) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		volumes, err := w.volumes(ctx)
		if err != nil {
			return err
		}
		leases, err := w.Client.CoordinationV1().Leases(w.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if left := w.driver.Volumes(); len(left) > 0 || len(volumes) > 0 || len(leases.Items) > 0 {
			return fmt.Errorf("left: %d at the driver, %d PersistentVolumes, %d intents", len(left), len(volumes), len(leases.Items))
		}
		return nil
	})
}

// told waits until the claim has an event that says part.
func (w *world) told(t *testing.T, claim, kind, reason, part string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		events, err := w.Client.CoreV1().Events(w.Namespace).List(ctx, metav1.ListOptions{
			FieldSelector: "involvedObject.kind=PersistentVolumeClaim,involvedObject.name=" + claim,
		})
		if err != nil {
			return err
		}
		var said []string
		for _, e := range events.Items {
			if e.Type == kind && e.Reason == reason && strings.Contains(e.Message, part) {
				return nil
			}
			said = append(said, e.Type+" "+e.Reason+": "+e.Message)
		}
		return fmt.Errorf("no %s %s that says %q on claim %s; there are: %q", kind, reason, part, claim, said)
	})
}

// eventually asks until the answer is nil.
func eventually(t *testing.T, ask func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), pulse, patience, true, func(ctx context.Context) (bool, error) {
		last = ask(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%v; last: %v", err, last)
	}
}
