package checkpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/app"
	agent "github.com/holdfast-io/holdfast/internal/node"
	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/runc"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/egress"
	"github.com/holdfast-io/holdfast/internal/store/local"
	"github.com/holdfast-io/holdfast/internal/store/s3"
	"github.com/holdfast-io/holdfast/test/s3server"
)

// saverArg is the argument with which this test program makes one checkpoint, stores it and
// reads it back, as the agent does.
const saverArg = "checkpoint-saver"

// bucket is that of the S3 server.
const bucket = "checkpoints"

// A saving is what a saver process is to do: a checkpoint, into a directory or into the
// bucket of an S3 server.
type saving struct {
	task
	Dir, S3 string
	// Keep leaves the archive in the store.
	Keep bool
}

// A saved checkpoint is what a saver process has measured.
type saved struct {
	Step   runtime.Step
	Reason string        // of the step
	Frozen time.Duration // as the engine reports it
	// Whole is the time from the call of the engine until the archive is verified and the
	// node has everything back.
	Whole  time.Duration
	Raw    int64 // bytes of the dump
	Stored int64 // bytes of the archive
	Digest string
	RSS    int64 // bytes of the process at its peak
}

// saverMain does what a saving says and prints what it has measured.
func saverMain(text string) int {
	var s saving
	return answer(text, &s, func() (any, error) { return s.do(context.Background()) })
}

// answer reads a value, does something, and prints what that returns.
func answer(text string, value any, do func() (any, error)) int {
	err := json.Unmarshal([]byte(text), value)
	if err == nil {
		var measured any
		if measured, err = do(); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(measured)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (s *saving) do(ctx context.Context) (*saved, error) {
	app.LimitGarbage(agent.MaxGarbage) // as the agent does
	engine, err := runc.New(s.Config)
	if err != nil {
		return nil, err
	}
	// The agent has probed before.
	if _, err := engine.Probe(ctx); err != nil {
		return nil, err
	}
	to, err := s.open()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	dumps, err := engine.Checkpoint(ctx, s.ID, s.Containers, s.Options)
	if err != nil {
		return nil, err
	}
	archived, err := agent.SaveDump(ctx, to, s.ID, dumps[0], nil)
	if err != nil {
		return nil, err
	}
	if err := dumps[0].Discard(); err != nil {
		return nil, err
	}
	whole := time.Since(start)
	report := dumps[0].Report()
	if !s.Keep {
		if err := to.Delete(ctx, s.ID); err != nil {
			return nil, err
		}
	}
	peak, err := peakRSS()
	return &saved{report.Step, report.Reason, report.Frozen, whole, archived.Raw, archived.Stored, archived.Digest, peak}, err
}

func (s *saving) open() (store.Store, error) {
	if s.S3 == "" {
		return local.New(s.Dir), nil
	}
	allowed := egress.Policy{AllowEndpoints: []string{"127.0.0.1"}}
	return s3.New(s3.Config{Endpoint: s.S3, Bucket: bucket, DialContext: allowed.DialContext,
		Credentials: s3.Credentials{AccessKeyID: s3server.AccessKeyID, SecretAccessKey: s3server.SecretAccessKey}})
}

// peakRSS returns the bytes of this process that were in RAM at most.
func peakRSS() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0, fmt.Errorf("reading VmHWM: %w", err)
	}
	return kib << 10, nil
}

// save runs a saver process.
func (s *saving) save(t testing.TB) *saved {
	t.Helper()
	var measured saved
	callSelf(t, saverArg, s, &measured)
	return &measured
}

// callSelf runs this program with an argument and a value, and reads what it prints.
func callSelf(t testing.TB, argument string, value, into any) {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", argument, string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", argument, err)
	}
}
