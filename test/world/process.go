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

// A Process is the program under test in one of its roles. It ends with the test
// process, even if that is killed.
type Process struct {
	cmd  *exec.Cmd
	log  outputBuffer
	done chan struct{}
	err  error // set before done is closed
}

// Start runs holdfast under the name of a role, such as "csi-provisioner". The caller
// must kill it; [World.StartProvisioner] starts a process that ends with the test.
func Start(role string, args ...string) (*Process, error) { return startProcess(nil, role, args) }

// StartProgram runs a program of another project, which has the same job as a role, or, if
// the program is "", the role. It is killed when the test ends.
func StartProgram(t testing.TB, program, role string, args ...string) *Process {
	t.Helper()
	if program == "" {
		return startForTest(t, nil, role, args)
	}
	p, err := startPath(program, nil, role, args)
	if err != nil {
		t.Fatal(err)
	}
	p.endWithTest(t)
	return p
}

// startProcess is Start with additional environment variables.
func startProcess(variables []string, role string, args []string) (*Process, error) {
	programs, err := Programs()
	if err != nil {
		return nil, err
	}
	return startPath(filepath.Join(programs, "holdfast"), variables, role, args)
}

func startPath(path string, variables []string, role string, args []string) (*Process, error) {
	p := &Process{cmd: exec.Command(path), done: make(chan struct{})}
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

// Kill sends SIGKILL and returns when the process is gone. It does nothing to a
// process that has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // The only error is that it has ended.
	<-p.done
}

// Terminate sends SIGTERM, as a kubelet does.
func (p *Process) Terminate() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // The only error is that it has ended.
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err waits for the end of the process and returns its error.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Role returns the role of the process.
func (p *Process) Role() string { return p.cmd.Args[0] }

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log returns the output of the process so far.
func (p *Process) Log() string { return p.log.String() }

// StartProvisioner starts role csi-provisioner for the world's driver. It is killed
// when the test ends; its output is shown if the test failed. Later arguments override
// those that the world gives.
func (w *World) StartProvisioner(t testing.TB, args ...string) *Process {
	t.Helper()
	return startForTest(t, nil, "csi-provisioner", w.ProvisionerArgs(args...))
}

// startForTest starts a role with additional environment variables, and kills it when
// the test ends.
func startForTest(t testing.TB, variables []string, role string, args []string) *Process {
	t.Helper()
	p, err := startProcess(variables, role, args)
	if err != nil {
		t.Fatal(err)
	}
	p.endWithTest(t)
	return p
}

// endWithTest kills the process when the test ends, and shows its output if the test failed.
func (p *Process) endWithTest(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", p.Role(), p.Log())
		}
	})
}

// ProvisionerArgs returns the arguments with which csi-provisioner uses the world's
// driver and keeps its records in the test's namespace, followed by args.
func (w *World) ProvisionerArgs(args ...string) []string {
	return append([]string{
		"--kubeconfig=" + w.Kubeconfig, "--csi-address=" + w.Socket, "--leader-election-namespace=" + w.Namespace,
	}, args...)
}

// outputBuffer collects the output of a process.
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
