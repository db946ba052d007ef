package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// An ending is the signal that asked this process to end.
type ending struct{ os.Signal }

func (e ending) Error() string { return "stopped by signal: " + e.String() }

// untilSignal returns a context that ends, with an ending as its cause, when
// this process is asked to end. It also keeps the process from dying of a
// broken pipe: whoever was to read its output may go first, and then the
// cluster must still be taken down.
func untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // Under nohup it is, and shall be.
		signal.Notify(signals, syscall.SIGHUP)
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		select {
		case s := <-signals:
			cancel(ending{s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// untilEnd returns a context that also ends when there is no more to read.
func untilEnd(ctx context.Context, r io.Reader) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		_, err := io.Copy(io.Discard, r)
		cancel(errors.Join(errors.New("standard input has ended"), err))
	}()
	return ctx
}

// fromTerminal tells whether err is a Ctrl-C that the terminal has sent to
// every process in the foreground, this one's children among them.
func fromTerminal(err error) bool {
	var e ending
	if !errors.As(err, &e) || e.Signal != syscall.SIGINT {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}
