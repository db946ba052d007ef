package e2e

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ctrlC presses Ctrl-C in a terminal whose foreground is exec and its command.
// The command counts the signals that reach it for a moment, then ends.
func ctrlC(t *testing.T, c *cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	screen, tty := terminal(t)
	cmd := c.command(ctx, "exec", "--name", c.name, "--", "sh", "-c", `
		n=-1 # Before the trap, whose value must not be lost.
		trap 'echo "got INT"; n=0' INT
		trap 'echo "got TERM"' TERM
		echo ready
		while [ $n -lt 10 ]; do sleep 0.1; [ $n -lt 0 ] || n=$((n+1)); done
		exit 5`)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	must(t, cmd.Start())
	must(t, tty.Close())
	said := &recorder{}
	go io.Copy(said, screen) //nolint:errcheck // It ends with an error when the terminal's last user does.
	eventually(t, "the command runs", func() error {
		if !strings.Contains(said.String(), "ready") {
			return errors.New(said.String())
		}
		return nil
	})
	const ctrlC = "\x03"
	_, err := screen.WriteString(ctrlC)
	must(t, err)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Errorf("exec ends with %v, want the command's code 5: %s", err, said)
	}
	if text := said.String(); strings.Count(text, "got INT") != 1 || strings.Contains(text, "got TERM") {
		t.Errorf("want one SIGINT and nothing else: %s", text)
	}
}

// terminal returns both ends of a new terminal.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	must(t, err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|syscall.O_NOCTTY, 0)
	must(t, err)
	return screen, tty
}
