// Package lifeline ties child processes to their parent: however the parent
// ends, kill -9 included, its children end too.
//
// Every child inherits the reading end of a pipe whose only writing end is in
// the parent. When the parent is gone the kernel closes that end, the child
// reads end-of-file and exits. Unlike PR_SET_PDEATHSIG this does not depend on
// which thread of the parent started the child.
package lifeline

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// variable tells a child the number of the descriptor that is its lifeline.
const variable = "DEVCLUSTER_LIFELINE"

// firstExtra is the descriptor that exec.Cmd gives to ExtraFiles[0].
const firstExtra = 3

// A Line is the parent's side.
type Line struct {
	read, write *os.File
}

// New makes a lifeline that lasts as long as this process, or until Cut.
func New() (*Line, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a lifeline: %w", err)
	}
	return &Line{read: r, write: w}, nil
}

// Self returns a command that runs this program again under another name, which
// selects its role and is what ps shows.
func Self(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{name}, args...)
	return cmd
}

// Attach makes cmd, not yet started, end when the line ends, and puts it into
// a session of its own so that Ctrl-C in a terminal reaches the parent only.
// The files in held stay open in the child for as long as it lives: a lock
// among them is held until the last child is gone.
func (l *Line) Attach(cmd *exec.Cmd, held ...*os.File) {
	cmd.ExtraFiles = append([]*os.File{l.read}, held...)
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d:%d", variable, firstExtra, 1+len(held)))
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
}

// Cut ends every process that is attached to the line.
func (l *Line) Cut() {
	l.write.Close()
	l.read.Close()
}

// Hold is the child's side, to be called first thing in main. In a process
// that was attached to a line it arranges for the exit; in any other it does
// nothing. What it inherited is not passed on to grandchildren.
func Hold() {
	var fd, count int
	if _, err := fmt.Sscanf(os.Getenv(variable), "%d:%d", &fd, &count); err != nil {
		return
	}
	_ = os.Unsetenv(variable) // It cannot fail on Linux.
	for i := range count {
		syscall.CloseOnExec(fd + i)
	}
	line := os.NewFile(uintptr(fd), "lifeline "+strconv.Itoa(fd))
	go func() {
		var b [1]byte
		for {
			if _, err := line.Read(b[:]); err != nil {
				os.Exit(int(syscall.SIGKILL) + 128)
			}
		}
	}()
}

// Attached tells whether another process of this machine was started with a
// lifeline. That it is still a child of the one who did so is not said.
func Attached(pid int) bool {
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	for entry := range strings.SplitSeq(string(environment), "\x00") {
		if strings.HasPrefix(entry, variable+"=") {
			return true
		}
	}
	return false
}
