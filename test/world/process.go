package world

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// A Process is the program under test in one of its roles. It ends with the
// test process, however that ends.
type Process struct {
	cmd  *exec.Cmd
	log  outputBuffer
	done chan struct{}
	err  error // set before done is closed
}

// Start runs holdfast under the name of a role, as in "csi-provisioner". It
// belongs to the caller, who kills it; see [World.Provisioner] for one that
// belongs to a test.
func Start(role string, args ...string) (*Process, error) { return startProcess(nil, role, args) }

// startProcess adds variables to the environment.
func startProcess(variables []string, role string, args []string) (*Process, error) {
	programs, err := Programs()
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.Command(filepath.Join(programs, "holdfast")), done: make(chan struct{})}
	p.cmd.Args = append([]string{role}, args...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.Env = append(append(os.Environ(), "KUBECONFIG="), variables...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", role, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Kill ends the process as a power cut would and returns when it is gone. It
// does nothing to one that has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // The only error is that it has ended.
	<-p.done
}

// Terminate asks the process to end, as a kubelet does.
func (p *Process) Terminate() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // The only error is that it has ended.
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is what the process ended with; it waits for the end.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Role is what the process runs as.
func (p *Process) Role() string { return p.cmd.Args[0] }

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is what the process has said so far.
func (p *Process) Log() string { return p.log.String() }

// StartProvisioner starts role csi-provisioner for the world's driver. It ends with
// the test, which shows what it said if it failed. Later arguments win over
// those that the world gives.
func (w *World) StartProvisioner(t testing.TB, args ...string) *Process {
	t.Helper()
	return startForTest(t, nil, "csi-provisioner", w.ProvisionerArgs(args...))
}

// startForTest starts a role, with variables added to the environment, that ends with
// the test.
func startForTest(t testing.TB, variables []string, role string, args []string) *Process {
	t.Helper()
	p, err := startProcess(variables, role, args)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", role, p.Log())
		}
	})
	return p
}

// ProvisionerArgs are what role csi-provisioner needs to serve the world's
// driver and to keep its records in the test's namespace, then args.
func (w *World) ProvisionerArgs(args ...string) []string {
	return append([]string{
		"--kubeconfig=" + w.Kubeconfig, "--csi-address=" + w.Socket, "--leader-election-namespace=" + w.Namespace,
	}, args...)
}

// outputBuffer collects what a process says.
type outputBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *outputBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *outputBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
