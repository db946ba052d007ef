package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

func driverError(code codes.Code) error {
	return &csi.Error{Driver: "d", Method: csi.CreateSnapshot, Code: code}
}

func TestUserMessage(t *testing.T) {
	tests := map[string]struct {
		err  error
		want string // part of the message; empty if there is none
	}{
		"a driver's final code":                        {driverError(codes.InvalidArgument), "terminal"},
		"a driver's temporary code":                    {driverError(codes.Unavailable), "transient"},
		"a driver that is out of capacity":             {driverError(codes.ResourceExhausted), "transient"},
		"a wrapped driver error":                       {fmt.Errorf("creating: %w", driverError(codes.Internal)), "transient"},
		"a driver error joined with an internal error": {errors.Join(driverError(codes.Internal), errors.New("etcd")), "transient"},
		"a Problem for the user":                       {Problemf("R", "class %s is gone", "x"), "class x is gone"},
		"a write conflict":                             {errors.New("the object has been modified"), ""},
		"shutdown":                                     {context.Canceled, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := UserMessage(tt.err)
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestIsNewError(t *testing.T) {
	now := time.Now()
	first := &csi.Error{Driver: "d", Method: csi.CreateSnapshot, Code: codes.Internal}
	said := StatusError("driver d: CreateSnapshot: Internal: request 1 (transient: it is retried)", now)
	tests := map[string]struct {
		err   error
		after time.Duration
		want  bool
	}{
		"the same code with another text":             {fmt.Errorf("%w, request 2", first), time.Minute, false},
		"the same code with another text, much later": {fmt.Errorf("%w, request 2", first), time.Hour, true},
		"another code":      {driverError(codes.Unavailable), time.Minute, true},
		"a Problem":         {Problemf("R", "x"), time.Minute, true},
		"an internal error": {errors.New("conflict"), time.Hour, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := IsNewError(said, tt.err, now.Add(tt.after)); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if same := StatusError(UserMessage(first), now); IsNewError(same, first, now.Add(time.Hour)) {
		t.Error("an identical error is new")
	}
	if !IsNewError(nil, first, now) {
		t.Error("the first error is not new")
	}
}

// Drivers and other programs write messages of any length.
func TestMessagesFitIntoAStatus(t *testing.T) {
	long := strings.Repeat("x", 60000)
	texts := map[string]string{
		"a driver's error":       UserMessage(fmt.Errorf("%s: %w", long, driverError(codes.InvalidArgument))),
		"a Problem":              UserMessage(Problemf("R", "%s", long)),
		"an error's text":        *StatusError(long, time.Now()).Message,
		"the error of a content": *CopyError(&snapshotv1.VolumeSnapshotError{Message: &long}).Message,
	}
	for what, text := range texts {
		if len(text) > kube.MessageLimit {
			t.Errorf("%s has %d bytes in a status", what, len(text))
		}
	}
	if text := texts["a driver's error"]; !strings.HasSuffix(text, "(terminal: it stays until something is changed)") {
		t.Errorf("whether to retry is cut off: %q", text[len(text)-80:])
	}
	if CopyError(nil) != nil {
		t.Error("there is an error where none was")
	}
}
