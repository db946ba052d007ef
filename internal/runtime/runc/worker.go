package runc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	goruntime "runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const architecture = goruntime.GOARCH

// Main is the worker: the part of the engine that runs in the namespaces of the node. The
// program calls it with the arguments that follow [Config].WorkerArgs, and exits with
// what it returns.
func Main(args []string) int {
	// The agent may be gone, and with it who reads what is written.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := work(ctx, args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func work(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("the worker was called with %q; it needs a task and its argument", args)
	}
	// The program's own descriptor must not reach runc.
	unix.CloseOnExec(3)
	task, argument := args[0], args[1]
	switch task {
	case "probe":
		maxMemory, err := strconv.ParseInt(argument, 10, 64)
		if err != nil {
			return fmt.Errorf("reading the limit of memory: %w", err)
		}
		capability, err := probe(ctx, maxMemory)
		return tell(&answer{Capability: capability}, err)
	case "images":
		reason, err := holdImages(argument)
		return tell(&answer{Reason: reason}, err)
	case "dump":
		return makeCheckpoint(ctx, argument)
	case "recover":
		return tell(&answer{}, recoverCheckpoint(ctx, argument))
	case "remove":
		return tell(&answer{}, errors.Join(recoverCheckpoint(ctx, argument), removeCheckpoint(argument)))
	}
	return fmt.Errorf("the worker does not know the task %q", task)
}

// tell writes an answer to the agent.
func tell(a *answer, err error) error {
	if err != nil {
		a.Error = toFailure(err)
	}
	return json.NewEncoder(os.Stdout).Encode(a)
}
