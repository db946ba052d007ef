// Package image builds container images from files of this machine, without a
// registry and without a container engine.
package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A Spec says what an image is made of.
type Spec struct {
	// Name is what pods call the image. Without a registry's host in it, it
	// means docker.io, as everywhere.
	Name string
	// Files maps absolute paths in the image to files of this machine.
	Files map[string]string
	// Links maps absolute paths in the image to the targets of symbolic links.
	Links map[string]string
	// Entrypoint is the program and its first arguments.
	Entrypoint []string
}

// Write builds the image into file, in the format of "docker save".
func Write(spec Spec, file string) error {
	tag, err := name.NewTag(spec.Name)
	if err != nil {
		return fmt.Errorf("reading image name: %w", err)
	}
	content, err := pack(spec)
	if err != nil {
		return err
	}
	layer := static.NewLayer(content, types.DockerUncompressedLayer) // It does not travel: packing it tight costs seconds.
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return fmt.Errorf("making image %s: %w", spec.Name, err)
	}
	image, err = mutate.ConfigFile(image, config(image, spec))
	if err != nil {
		return fmt.Errorf("configuring image %s: %w", spec.Name, err)
	}
	if err := tarball.WriteToFile(file, tag, image); err != nil {
		return fmt.Errorf("writing image %s: %w", spec.Name, err)
	}
	return nil
}

func config(image v1.Image, spec Spec) *v1.ConfigFile {
	c, err := image.ConfigFile()
	if err != nil {
		panic(err) // The image was made in memory a moment ago: it has one.
	}
	c.OS, c.Architecture = "linux", goarch
	c.Config.Entrypoint = spec.Entrypoint
	c.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return c
}

// pack makes the one layer. Folders come before what lies in them.
func pack(spec Spec) ([]byte, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, dir := range folders(spec) {
		if err := w.WriteHeader(&tar.Header{Name: dir[1:] + "/", Typeflag: tar.TypeDir, Mode: mode(dir)}); err != nil {
			return nil, fmt.Errorf("packing %s: %w", dir, err)
		}
	}
	for _, to := range sorted(spec.Files) {
		if err := packFile(w, to, spec.Files[to]); err != nil {
			return nil, err
		}
	}
	for _, to := range sorted(spec.Links) {
		if err := w.WriteHeader(&tar.Header{Name: to[1:], Typeflag: tar.TypeSymlink, Linkname: spec.Links[to]}); err != nil {
			return nil, fmt.Errorf("packing %s: %w", to, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("closing the layer: %w", err)
	}
	return buffer.Bytes(), nil
}

func packFile(w *tar.Writer, to, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("packing %s: %w", to, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("packing %s: %w", to, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("packing %s: %s is not a regular file", to, from)
	}
	header := &tar.Header{Name: to[1:], Typeflag: tar.TypeReg, Size: info.Size(), Mode: int64(info.Mode() & fs.ModePerm)}
	if err := w.WriteHeader(header); err != nil {
		return fmt.Errorf("packing %s: %w", to, err)
	}
	if _, err := io.Copy(w, f); err != nil {
		return fmt.Errorf("packing %s: %w", to, err)
	}
	return nil
}

// folders are all that the image needs, parents first.
func folders(spec Spec) []string {
	set := map[string]bool{}
	add := func(dir string) {
		for ; dir != "/"; dir = path.Dir(dir) {
			set[dir] = true
		}
	}
	add("/tmp")
	for to := range spec.Files {
		add(path.Dir(to))
	}
	for to := range spec.Links {
		add(path.Dir(to))
	}
	return sorted(set)
}

func mode(dir string) int64 {
	if dir == "/tmp" {
		return 0o1777
	}
	return 0o755
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// AddProgram adds a program of a Debian tree, named by its path in it, with
// the libraries that it needs, at the same paths.
func (s *Spec) AddProgram(tree, program string) error {
	files, err := closure(tree, program)
	if err != nil {
		return fmt.Errorf("adding %s to image %s: %w", program, s.Name, err)
	}
	for _, f := range files {
		s.Files[f] = filepath.Join(tree, resolve(tree, f))
	}
	return nil
}

// resolve follows symbolic links inside a tree that is not mounted as root.
func resolve(tree, file string) string {
	for range 16 {
		target, err := os.Readlink(filepath.Join(tree, file))
		if err != nil {
			return file
		}
		if !strings.HasPrefix(target, "/") {
			target = path.Join(path.Dir(file), target)
		}
		file = target
	}
	return file
}
