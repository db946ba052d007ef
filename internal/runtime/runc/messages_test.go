package runc

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

func TestErrorsAreWholeInTheAgent(t *testing.T) {
	known := &runtime.Error{Reason: runtime.Busy, Retry: true, Untouched: true, OtherEngine: true, Err: errors.New("it is paused")}
	for name, sent := range map[string]error{
		"one with a reason":    fmt.Errorf("container main: %w", known),
		"one without a reason": errors.New("no such file"),
	} {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(toFailure(sent))
			if err != nil {
				t.Fatal(err)
			}
			var f failure
			if err := json.Unmarshal(text, &f); err != nil {
				t.Fatal(err)
			}
			got := f.toError()
			if got.Error() != sent.Error() {
				t.Errorf("the text is %q, want %q", got, sent)
			}
			var before, after *runtime.Error
			if errors.As(sent, &before) != errors.As(got, &after) {
				t.Fatalf("got %#v, want %#v", got, sent)
			}
			if before == nil {
				return
			}
			want := *before
			want.Err = after.Err
			if *after != want {
				t.Errorf("got %+v, want %+v", *after, want)
			}
		})
	}
}
