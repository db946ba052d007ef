package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-io/holdfast/internal/csi"
)

func driverError(code codes.Code) error {
	return &csi.Error{Driver: "d", Method: csi.CreateSnapshot, Code: code}
}

func TestUsersAreToldWhatConcernsThem(t *testing.T) {
	tests := map[string]struct {
		err  error
		want string // part of it; empty if nothing is told
	}{
		"a driver's refusal for good":    {driverError(codes.InvalidArgument), "terminal"},
		"a driver's trouble":             {driverError(codes.Unavailable), "transient"},
		"a driver that is full":          {driverError(codes.ResourceExhausted), "transient"},
		"also wrapped":                   {fmt.Errorf("creating: %w", driverError(codes.Internal)), "transient"},
		"also beside a trouble of ours":  {errors.Join(driverError(codes.Internal), errors.New("etcd")), "transient"},
		"what the user has to put right": {Problemf("R", "class %s is gone", "x"), "class x is gone"},
		"a conflict of our own":          {errors.New("the object has been modified"), ""},
		"our own end":                    {context.Canceled, ""},
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

func TestTheSameFailureIsNoNews(t *testing.T) {
	now := time.Now()
	first := &csi.Error{Driver: "d", Method: csi.CreateSnapshot, Code: codes.Internal}
	said := StatusError("driver d: CreateSnapshot: Internal: request 1 (transient: it is tried again)", now)
	tests := map[string]struct {
		err   error
		after time.Duration
		want  bool
	}{
		"the same in other words":             {fmt.Errorf("%w, request 2", first), time.Minute, false},
		"the same in other words, much later": {fmt.Errorf("%w, request 2", first), time.Hour, true},
		"another code":                        {driverError(codes.Unavailable), time.Minute, true},
		"a problem":                           {Problemf("R", "x"), time.Minute, true},
		"what concerns nobody":                {errors.New("conflict"), time.Hour, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := IsNewError(said, tt.err, now.Add(tt.after)); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if same := StatusError(UserMessage(first), now); IsNewError(same, first, now.Add(time.Hour)) {
		t.Error("the very same is told again")
	}
	if !IsNewError(nil, first, now) {
		t.Error("the first failure is news")
	}
}
