package wrapper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/internal/ticket"
)

// A wrapper is one call of the program.
type wrapper struct {
	argv   []string // how the program was called
	call   call
	config config
}

// Main runs the program under the name and with the arguments of argv, and returns its exit
// code. It does not return if the real runtime takes the place of this process.
func Main(argv []string) int {
	if argv[0] == workerName {
		return workerMain(argv[1:])
	}
	w, err := newWrapper(argv)
	if err == nil {
		err = w.run()
	}
	return w.exitCode(err)
}

func newWrapper(argv []string) (*wrapper, error) {
	w := &wrapper{argv: argv, call: parse(argv[1:])}
	var err error
	w.config, err = loadConfig(argv[0])
	return w, err
}

// exitCode reports an error. That of a process that has reported its own is only passed on.
func (w *wrapper) exitCode(err error) int {
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended) && ended.Exited():
		return ended.ExitCode()
	}
	report(w.call, err)
	return 1
}

func (w *wrapper) run() error {
	switch w.call.command {
	case "create", "run":
		return w.create()
	case "start":
		return w.start()
	case "state":
		return w.state()
	default:
		return w.exec()
	}
}

// exec executes the real runtime in the place of this process, with the same arguments,
// environment and descriptors.
func (w *wrapper) exec() error {
	args := append([]string{w.config.runtime}, w.argv[1:]...)
	if err := syscall.Exec(w.config.runtime, args, os.Environ()); err != nil {
		return fmt.Errorf("executing the OCI runtime %s: %w", w.config.runtime, err)
	}
	return nil
}

func (w *wrapper) create() error {
	warn(w.call, w.config.warning)
	a, err := readAnnotations(w.call.specPath())
	if err != nil {
		return w.exec() // The real runtime says what is wrong with it.
	}
	place, err := w.place(a)
	switch {
	case err != nil && a.request() != "":
		return fmt.Errorf("the restore from %s is refused: %w", a.request(), err)
	case err != nil:
		warn(w.call, err.Error())
		return w.exec()
	case place == nil:
		return w.exec()
	}
	return w.createAt(place, a.request())
}

// place returns where the agent leaves tickets for the container, nil if it is no container
// of a pod.
func (w *wrapper) place(a annotations) (*ticket.Container, error) {
	id, err := a.identity()
	if err != nil || a.isPause() || id == (identity{}) {
		return nil, err
	}
	return ticket.At(w.config.dir, id.podUID, id.container)
}

// createAt creates or restores a container of a pod.
func (w *wrapper) createAt(place *ticket.Container, request string) error {
	// Nearly every container: it is not kept waiting for what only a restore needs.
	if s := observe(place, request); decide(s) == pass {
		return w.pass(s)
	}
	ctx, stop := whileParentLives(context.Background())
	defer stop()
	for {
		waiting, cancel := context.WithTimeout(ctx, w.config.wait)
		action, s := await(waiting, place, request)
		cancel()
		if err := context.Cause(ctx); err != nil {
			return err
		}
		switch action {
		case pass:
			return w.pass(s)
		case fail:
			return fmt.Errorf("the container is not started: %s", s.ticket.Message)
		case waitMore:
			return noTicket(s, place, w.config.wait)
		case restore:
		}
		if w.call.command == "run" {
			return errors.New("run cannot restore a container: the CRI runtime must call create and start")
		}
		if err := w.supervise(ctx, place); !isChanged(err) {
			return err
		}
	}
}

// pass lets the real runtime create the container.
func (w *wrapper) pass(s situation) error {
	if s.err != nil {
		warn(w.call, s.err.Error())
	}
	return w.exec()
}

// parentPoll is how often a process looks whether its parent lives.
const parentPoll = 100 * time.Millisecond

// errNoParent means that nobody is interested in the container any more.
var errNoParent = errors.New("the CRI runtime's process has ended meanwhile")

// whileParentLives returns a context that ends when the parent of this process has ended: a
// CRI runtime that comes back knows nothing of a container that nobody has told it about.
func whileParentLives(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	parent := os.Getppid()
	go func() {
		tick := time.NewTicker(parentPoll)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if os.Getppid() != parent {
					cancel(errNoParent)
					return
				}
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// markerFile in the state directory of a container says that it was restored, and that
// nobody has started it.
const markerFile = "holdfast-restored"

func (w *wrapper) marker() string {
	dir := w.call.stateDir(w.config.runtime)
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, markerFile)
}

// start starts a container. One that was restored runs already: it has been started by the
// first call of start.
func (w *wrapper) start() error {
	if marker := w.marker(); marker != "" && os.Remove(marker) == nil {
		return nil
	}
	return w.exec()
}

// state prints the state of a container. A restored one is called "created" until it is
// started: CRI-O starts no others.
func (w *wrapper) state() error {
	marker := w.marker()
	if marker == "" {
		return w.exec()
	}
	if _, err := os.Stat(marker); err != nil {
		return w.exec()
	}
	cmd := exec.Command(w.config.runtime, w.argv[1:]...)
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return err
	}
	var state map[string]any
	if err := json.Unmarshal(text, &state); err != nil {
		return fmt.Errorf("reading the state of the container: %w", err)
	}
	if state["status"] == "running" {
		state["status"] = "created"
	}
	return json.NewEncoder(os.Stdout).Encode(state)
}
