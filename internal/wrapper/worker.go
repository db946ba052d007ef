package wrapper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/internal/ticket"
)

// errChanged means that the agent has replaced the ticket since the wrapper has read it.
var errChanged = errors.New("the ticket has changed")

// errInterrupted means that the wrapper was told to stop.
var errInterrupted = errors.New("the restore was interrupted")

// An incompatibleError means that the restore fails whenever it is repeated.
type incompatibleError struct{ text string }

func (e *incompatibleError) Error() string { return e.text }

func incompatible(format string, args ...any) error {
	return &incompatibleError{text: fmt.Sprintf(format, args...)}
}

// workerMain restores one container. argv is that of the wrapper.
func workerMain(argv []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), stopSignals...)
	defer stop()
	w, err := newWrapper(argv)
	if err == nil {
		err = w.work(ctx)
	}
	if errors.Is(err, errChanged) {
		return exitChanged
	}
	return w.exitCode(err)
}

func (w *wrapper) work(ctx context.Context) error {
	if err := errors.Join(adoptOrphans(), closeDescriptors()); err != nil {
		return err
	}
	s, err := readSpec(w.call.specPath())
	if err != nil {
		return err
	}
	place, err := w.place(s.Annotations)
	if err != nil {
		return err
	}
	outcome := ticket.Outcome{ContainerID: w.call.id, Started: time.Now()}
	t, err := claim(place, s.Annotations.request(), outcome.Started)
	if errors.Is(err, errChanged) {
		return err
	}
	outcome.Request = t.Request
	if err == nil {
		err = w.restore(ctx, place, s, t, &outcome)
	}
	return w.record(place, outcome, err)
}

// claim takes the ticket. It returns the ticket, also together with an error, unless the
// error is [errChanged].
func claim(place *ticket.Container, request string, now time.Time) (*ticket.Ticket, error) {
	t, err := place.Claim(now)
	if err != nil {
		claimed, claimedErr := place.Claimed()
		if claimedErr != nil {
			return nil, errChanged
		}
		return claimed, err
	}
	if t.Decision != ticket.Restore || request != "" && t.Request != request {
		return nil, errChanged
	}
	return t, nil
}

// record records the outcome, as the last step of all: a container whose outcome is not
// recorded was not restored.
func (w *wrapper) record(place *ticket.Container, outcome ticket.Outcome, err error) error {
	outcome.Ended = time.Now()
	if err != nil {
		var never *incompatibleError
		outcome.Error, outcome.Incompatible, outcome.Interrupted = err.Error(), errors.As(err, &never), errors.Is(err, errInterrupted)
		return errors.Join(err, place.SetOutcome(outcome))
	}
	if err := place.SetOutcome(outcome); err != nil {
		return errors.Join(err, w.removeRest())
	}
	return nil
}

// restore restores the container, and removes what is left of it if that fails.
func (w *wrapper) restore(ctx context.Context, place *ticket.Container, s *spec, t *ticket.Ticket, outcome *ticket.Outcome) error {
	data := place.DataDir()
	if !place.HasData() {
		return errors.New("the checkpoint is not whole: its data are not on the node any more, and the agent fetches them again")
	}
	then, err := readSpec(filepath.Join(data, "spec.dump"))
	if err != nil {
		return fmt.Errorf("the checkpoint is not whole: %w", err)
	}
	if err := compatible(then, s, t.Compatible); err != nil {
		return err
	}
	begin := time.Now()
	if err := w.restoreFiles(ctx, place, s, t); err != nil {
		return err
	}
	outcome.RootfsSeconds = time.Since(begin).Seconds()
	begin = time.Now()
	if err := armTimers(place.ImagesDir()); err != nil {
		return err
	}
	if err := w.restoreProcesses(ctx, place, s, t); err != nil {
		return errors.Join(err, w.removeRest())
	}
	outcome.RestoreSeconds = time.Since(begin).Seconds()
	err = w.mark()
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", errInterrupted, context.Cause(ctx))
	}
	if err != nil {
		return errors.Join(err, w.removeRest())
	}
	return nil
}

// restoreFiles restores what the processes find when they go on.
func (w *wrapper) restoreFiles(ctx context.Context, place *ticket.Container, s *spec, t *ticket.Ticket) error {
	if err := w.applyRootfs(ctx, s, place.DataDir()); err != nil {
		return err
	}
	if err := putBackVolumes(ctx, place, s, t.Volumes); err != nil {
		return err
	}
	return prepareIPC(place, s, t)
}

// mark lets start and state know that the container was restored.
func (w *wrapper) mark() error {
	marker := w.marker()
	if marker == "" {
		return fmt.Errorf("the ID %q of the container is not the name of a file", w.call.id)
	}
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		return fmt.Errorf("marking the container as restored: %w", err)
	}
	return nil
}
