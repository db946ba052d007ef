package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/archive"
)

// checkpointFiles are what checkpointctl needs of a checkpoint.
var checkpointFiles = map[string]string{
	"config.dump": `{"id":"9f2d61a0b7c4","name":"app","rootfsImageName":"registry.example/app:1","runtime":"runc",` +
		`"createdTime":"2026-11-30T01:00:00Z","checkpointedTime":"2026-11-30T01:02:03Z"}`,
	"spec.dump": `{"ociVersion":"1.2.0","process":{"args":["app"],"cwd":"/"},"root":{"path":"rootfs"},"annotations":{` +
		`"io.kubernetes.cri.container-type":"container","io.kubernetes.cri.container-name":"app",` +
		`"io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"shop"}}`,
	"status.dump":            `{"metadata":{"name":"app"}}`,
	"checkpoint/pages-1.img": strings.Repeat("A", 4096) + strings.Repeat("\x00", 8192) + strings.Repeat("B", 4096),
	"checkpoint/empty.img":   "",
}

// writeArchive writes an archive into a new directory and returns its path.
func writeArchive(t *testing.T, options archive.WriteOptions) (path string, result *archive.Result) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "web-0.hfca")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w, err := archive.NewWriter(out, archive.Header{
		Identity: archive.Identity{Namespace: "shop", Pod: "web-0", PodUID: "5c2c8d8e", Container: "app", ContainerID: "9f2d61a0b7c4"},
		Created:  time.Date(2026, 11, 30, 1, 2, 3, 0, time.UTC), Metadata: map[string]string{"engine": "runc"},
	}, options)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for name, data := range checkpointFiles {
		if err := w.Add(t.Context(), archive.File{Name: name, Size: int64(len(data)), Mode: 0o600, Reader: strings.NewReader(data)}); err != nil {
			t.Fatal(err)
		}
	}
	if result, err = w.Close(); err != nil {
		t.Fatal(err)
	}
	return path, result
}

// runArchive runs holdfast archive and returns its output.
func runArchive(t *testing.T, args ...string) (string, error) {
	t.Helper()
	command, out := newArchive(), &bytes.Buffer{}
	command.SetArgs(args)
	command.SetOut(out)
	command.SetErr(io.Discard)
	command.SilenceUsage, command.SilenceErrors = true, true
	err := command.ExecuteContext(t.Context())
	return out.String(), err
}

// writeKey writes a new key into a file.
func writeKey(t *testing.T) (key archive.Key, path string) {
	t.Helper()
	secret := make([]byte, archive.KeySize)
	secret[0] = byte(time.Now().Nanosecond())
	key, err := archive.ParseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	return key, path
}

func TestArchiveInspect(t *testing.T) {
	t.Parallel()
	key, keyFile := writeKey(t)
	path, _ := writeArchive(t, archive.WriteOptions{Key: &key})
	out, err := runArchive(t, "inspect", path, "--key-file", keyFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"shop", "web-0", "engine:", "with key " + key.ID(), "4 of 4096 bytes, 2 of them zeros", "checkpoint/pages-1.img  16.0 KiB"} {
		if !strings.Contains(out, want) {
			t.Errorf("the table lacks %q:\n%s", want, out)
		}
	}
	out, err = runArchive(t, "inspect", path)
	if err != nil || !strings.Contains(out, "web-0") || strings.Contains(out, "pages-1") || !strings.Contains(out, "--key-file") {
		t.Errorf("without the key: error %v, output\n%s", err, out)
	}
	out, err = runArchive(t, "inspect", path, "--key-file", keyFile, "-o", "json")
	var found inspection
	if err := errors.Join(err, json.Unmarshal([]byte(out), &found)); err != nil {
		t.Fatal(err)
	}
	if len(found.Files) != len(checkpointFiles) || found.Identity.PodUID != "5c2c8d8e" || !found.Authenticated || !found.Encrypted {
		t.Errorf("as JSON: %s", out)
	}
}

func TestArchiveVerify(t *testing.T) {
	t.Parallel()
	path, result := writeArchive(t, archive.WriteOptions{})
	if out, err := runArchive(t, "verify", path, "--digest", result.Digest); err != nil || !strings.Contains(out, result.Digest) {
		t.Errorf("error %v, output %s", err, out)
	}
	if _, err := runArchive(t, "verify", path, "--digest", "sha256:00"); err == nil || !strings.Contains(err.Error(), "another archive") {
		t.Errorf("with another digest: error %v", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runArchive(t, "verify", path); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("with a changed byte: error %v", err)
	}
}

func TestArchiveErrors(t *testing.T) {
	t.Parallel()
	key, keyFile := writeKey(t)
	path, _ := writeArchive(t, archive.WriteOptions{Key: &key})
	directory := t.TempDir()
	write := func(name, data string) string {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(directory, name)
	}
	otherKey := write("other", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff")
	tests := map[string]struct {
		args []string
		err  string
	}{
		"a key is needed":            {[]string{"verify", path}, "encrypted with key " + key.ID() + ", and no key was given: name the file with the key with --key-file"},
		"the key is another one":     {[]string{"verify", path, "--key-file", otherKey}, "encrypted with key " + key.ID() + ", and not with key "},
		"the key is none":            {[]string{"verify", path, "--key-file", write("short", "x")}, "this is no key: want 32 random bytes"},
		"the key is not there":       {[]string{"verify", path, "--key-file", "/none"}, "reading the key: open /none: no such file"},
		"the archive is not there":   {[]string{"inspect", "/none"}, "opening the archive: open /none: no such file"},
		"the archive is a directory": {[]string{"inspect", directory}, "is no regular file"},
		"the archive is a tar":       {[]string{"inspect", write("tar", strings.Repeat("x", 1024))}, "not a valid checkpoint archive"},
		"the limit is no size":       {[]string{"inspect", path, "--max-size", "much"}, "--max-size=much: want a number of bytes"},
		"the archive is too large":   {[]string{"verify", path, "--key-file", keyFile, "--max-size", "1Ki"}, "raise --max-size"},
		"the output is not named":    {[]string{"export", path}, `"output" not set`},
		"the output exists":          {[]string{"export", path, "--key-file", keyFile, "-o", write("there", "")}, "exists: delete it or choose another name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := runArchive(t, tt.args...); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got the error %v, want %q", err, tt.err)
			}
		})
	}
}

// What is exported has the same files, is only readable by its owner, and is a checkpoint for
// checkpointctl.
func TestArchiveExport(t *testing.T) {
	t.Parallel()
	key, keyFile := writeKey(t)
	path, _ := writeArchive(t, archive.WriteOptions{Key: &key})
	out := filepath.Join(t.TempDir(), "web-0.tar")
	if _, err := runArchive(t, "export", path, "--key-file", keyFile, "-o", out); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(out)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the mode is %v, error %v", info.Mode(), err)
	}
	checkTar(t, out)
	if left, err := os.ReadDir(filepath.Dir(out)); err != nil || len(left) != 1 {
		t.Errorf("beside the output there is %v, error %v", left, err)
	}
	ctl := buildCheckpointctl(t)
	for _, args := range [][]string{{"show", out}, {"inspect", out}} {
		output, err := exec.CommandContext(t.Context(), ctl, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(output), "app") || !strings.Contains(string(output), "containerd") {
			t.Errorf("checkpointctl %s: error %v, output\n%s", args[0], err, output)
		}
	}
}

func checkTar(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	found, r := map[string]string{}, tar.NewReader(file)
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			found[header.Name] = string(data)
		}
	}
	for name, data := range checkpointFiles {
		if found[name] != data {
			t.Errorf("%s has %d bytes, want %d", name, len(found[name]), len(data))
		}
	}
	if len(found) != len(checkpointFiles) {
		t.Errorf("the tar archive has %d files, want %d", len(found), len(checkpointFiles))
	}
}

// buildCheckpointctl builds the version in go.tools.mod.
func buildCheckpointctl(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "checkpointctl")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=go.tools.mod", "-o", program, "github.com/checkpoint-restore/checkpointctl")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building checkpointctl: %v\n%s", err, output)
	}
	return program
}
