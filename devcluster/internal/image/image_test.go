package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func file(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWrite(t *testing.T) {
	spec := Spec{
		Name: "example.com/tool:1",
		Files: map[string]string{
			"/usr/bin/tool": file(t, "program", 0o755),
			"/etc/config":   file(t, "text", 0o640),
		},
		Links:      map[string]string{"/bin/sh": "../usr/bin/tool"},
		Entrypoint: []string{"/usr/bin/tool", "run"},
	}
	out := filepath.Join(t.TempDir(), "image.tar")
	if err := Write(spec, out); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(spec.Name)
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(out, &tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(image); err != nil {
		t.Errorf("the image is not whole: %v", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec.Entrypoint, config.Config.Entrypoint); diff != "" {
		t.Errorf("entrypoint: %s", diff)
	}
	want := []string{ // Folders first, each after the one that it lies in.
		"bin drwxr-xr-x", "etc drwxr-xr-x", "tmp dtrwxrwxrwx", "usr drwxr-xr-x", "usr/bin drwxr-xr-x",
		"etc/config -rw-r----- text", "usr/bin/tool -rwxr-xr-x program", "bin/sh L--------- ../usr/bin/tool",
	}
	if diff := cmp.Diff(want, list(t, mutate.Extract(image))); diff != "" {
		t.Errorf("content: %s", diff)
	}
}

// list describes what is in a tar file, in order.
func list(t *testing.T, r io.ReadCloser) []string {
	t.Helper()
	defer r.Close()
	var found []string
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, strings.TrimSpace(fmt.Sprint(header.Name, " ", header.FileInfo().Mode(), " ", string(text), header.Linkname)))
	}
}

func TestWriteRefuses(t *testing.T) {
	tests := map[string]struct {
		spec Spec
		want string
	}{
		"a name that pods could not use": {Spec{Name: "Not A Name"}, "reading image name"},
		"a file that is not there":       {Spec{Name: "a.example/tool:1", Files: map[string]string{"/x": "/does/not/exist"}}, "packing /x"},
		"a folder":                       {Spec{Name: "a.example/tool:1", Files: map[string]string{"/x": "/etc"}}, "/etc is not a regular file"},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			err := Write(tt.spec, filepath.Join(t.TempDir(), "image.tar"))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// The loader of this machine says what a program of this machine needs.
func TestAddProgram(t *testing.T) {
	const program = "/usr/bin/tar"
	said, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Fatalf("asking ldd: %v", err)
	}
	spec := Spec{Files: map[string]string{}}
	if err := spec.AddProgram("/", program); err != nil {
		t.Fatal(err)
	}
	var got []string
	for to := range spec.Files {
		got = append(got, filepath.Base(to))
	}
	want := []string{"tar"}
	for line := range bytes.Lines(said) {
		if library := filepath.Base(string(bytes.Fields(line)[0])); !strings.HasPrefix(library, "linux-vdso") {
			want = append(want, library)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	got = slices.Compact(got) // The loader is needed under two names: as the interpreter and as a library.
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAddProgramRefuses(t *testing.T) {
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "script"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for what, program := range map[string]string{"a program that is not there": "/none", "a script, whose needs nobody knows": "/script"} {
		t.Run(what, func(t *testing.T) {
			spec := Spec{Name: "a.example/tool:1", Files: map[string]string{}}
			if err := spec.AddProgram(tree, program); err == nil || !strings.Contains(err.Error(), program) {
				t.Errorf("got %v, want an error that names it", err)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	tree := t.TempDir()
	links := map[string]string{"a": "/usr/b", "usr/b": "c", "loop": "loop"}
	if err := os.Mkdir(filepath.Join(tree, "usr"), 0o755); err != nil {
		t.Fatal(err)
	}
	for from, to := range links {
		if err := os.Symlink(to, filepath.Join(tree, from)); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct{ file, want string }{
		"a file is itself":                       {"/usr/c", "/usr/c"},
		"an absolute link stays in the tree":     {"/a", "/usr/c"},
		"a relative link is from where it lies":  {"/usr/b", "/usr/c"},
		"a link to itself does not take forever": {"/loop", "/loop"},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			if got := resolve(tree, tt.file); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
