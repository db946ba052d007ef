package cli

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExitCode(t *testing.T) {
	run := func(script string) error { return exec.Command("sh", "-c", script).Run() }
	tests := map[string]struct {
		err  error
		want int
	}{
		"is the command's":                           {&commandError{"x", run("exit 42")}, 42},
		"is the command's, whatever else went wrong": {errors.Join(&commandError{"x", run("exit 42")}, errors.New("other")), 42},
		"tells the signal as a shell does":           {&commandError{"x", run("kill -TERM $$")}, 143},
		"of a command that is not there is 1":        {&commandError{"x", exec.ErrNotFound}, 1},
		"of a tool that we call ourselves is 1":      {fmt.Errorf("importing: %w", run("exit 42")), 1},
		"of any other mistake is 1":                  {errors.New("other"), 1},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			if got := ExitCode(tt.err); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestImageOfTheCommandLine(t *testing.T) {
	tests := map[string]struct {
		options loadOptions
		entry   []string
		want    string
	}{
		"the first file is what runs":          {loadOptions{files: []string{"/z=a", "/a=b"}}, []string{"/z"}, ""},
		"unless another is named":              {loadOptions{files: []string{"/z=a"}, entrypoint: []string{"/a", "b"}}, []string{"/a", "b"}, ""},
		"an image needs a file":                {loadOptions{}, nil, "needs a --file"},
		"a file needs a place in the image":    {loadOptions{files: []string{"a"}}, nil, "give it as /path/in/image=file"},
		"a place in the image is a whole path": {loadOptions{files: []string{"a=b"}}, nil, "give it as /path/in/image=file"},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			spec, err := tt.options.spec("a.example/b:1", "")
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want an error with %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.entry, spec.Entrypoint); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOnlyTheTerminalsCtrlCReachesTheCommandByItself(t *testing.T) {
	for what, err := range map[string]error{
		"another signal":  ending{syscall.SIGTERM},
		"a cluster's end": errors.New("etcd ended"),
		"nothing":         nil,
	} {
		if fromTerminal(err) {
			t.Errorf("%s counts as Ctrl-C", what)
		}
	}
}
