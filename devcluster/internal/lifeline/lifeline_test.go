package lifeline

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// What this test binary is when it is run again.
const (
	child  = "child"  // holds the line and waits
	parent = "parent" // starts a child and waits
)

func TestMain(m *testing.M) {
	Hold()
	switch os.Args[0] {
	case child:
		fmt.Println("up")
		select {}
	case parent:
		line, err := New()
		if err != nil {
			panic(err)
		}
		cmd := Self(child)
		cmd.Stdout = os.Stdout
		line.Attach(cmd)
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		_ = cmd.Wait()
	default:
		os.Exit(m.Run())
	}
}

// start runs cmd and returns, when it is up, its output, which ends when every
// process that has it open does.
func start(t *testing.T, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	output := bufio.NewReader(pipe)
	if _, err := output.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return output
}

func TestCutEndsTheChild(t *testing.T) {
	line, err := New()
	if err != nil {
		t.Fatal(err)
	}
	cmd := Self(child)
	line.Attach(cmd)
	start(t, cmd)
	if !Attached(cmd.Process.Pid) {
		t.Error("the child does not count as attached")
	}
	line.Cut()
	if err := cmd.Wait(); err == nil {
		t.Error("the child ended as if it had nothing left to do")
	}
}

func TestTheChildOfAKilledParentEnds(t *testing.T) {
	cmd := Self(parent)
	output := start(t, cmd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if rest, err := output.ReadString('\n'); err == nil { // It returns when the child has ended too.
		t.Errorf("the child says %q", rest)
	}
	_ = cmd.Wait()
}

func TestTheChildHoldsAFileUntilItEnds(t *testing.T) {
	line, err := New()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := Self(child)
	line.Attach(cmd, write)
	start(t, cmd)
	write.Close()
	if err := read.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := read.Read(b[:]); !os.IsTimeout(err) {
		t.Errorf("reading while the child lives: %v, want that somebody could still write", err)
	}
	line.Cut()
	_ = cmd.Wait()
	if err := read.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := read.Read(b[:]); err == nil || os.IsTimeout(err) {
		t.Errorf("reading when the child has ended: %v, want that nobody can write any more", err)
	}
}

func TestAProcessWithoutALineIsNotAttached(t *testing.T) {
	for what, pid := range map[string]int{"this one": os.Getpid(), "none": 1 << 30} {
		if Attached(pid) {
			t.Errorf("%s counts as attached", what)
		}
	}
}

// Ctrl-C in a terminal reaches the processes of its foreground group.
func TestTheChildIsInASessionOfItsOwn(t *testing.T) {
	line, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer line.Cut()
	cmd := Self(child)
	line.Attach(cmd)
	start(t, cmd)
	group, err := syscall.Getpgid(cmd.Process.Pid)
	if err != nil || group != cmd.Process.Pid {
		t.Errorf("the child's group is %d, %v, want its own, %d", group, err, cmd.Process.Pid)
	}
}
