package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestAnArchiveHasTheImage(t *testing.T) {
	dir := t.TempDir()
	program, archive := filepath.Join(dir, "program"), filepath.Join(dir, "image.tar")
	if err := os.WriteFile(program, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-name", "a.example/tool:1", "-output", archive, "-file", "/b=" + program, "-link", "/c=/b", "-entrypoint", "/c"}); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("a.example/tool:1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(archive, &tag)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(config.Config.Entrypoint, " "); got != "/c" {
		t.Errorf("the entrypoint is %q, want /c", got)
	}
}

func TestWrongFlagsAreErrors(t *testing.T) {
	for what, tt := range map[string]struct{ args, want string }{
		"an image needs a file":       {"-name tool -output b", "are required"},
		"a path in it is absolute":    {"-name tool -output b -file c=d", "is not /path=value"},
		"there are no arguments":      {"-name tool -output b -file /c=d e", "no arguments"},
		"a file that does not exist":  {"-name tool:1 -output b -file /c=/nowhere", "/nowhere"},
		"a program that is not there": {"-name tool:1 -output b -file /c=d -program /nowhere", "/nowhere"},
	} {
		t.Run(what, func(t *testing.T) {
			if err := run(strings.Fields(tt.args)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}
