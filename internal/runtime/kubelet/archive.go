package kubelet

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// Limits on what is read of an archive, which may come from a hostile container.
const (
	maxEntries  = 100_000
	maxName     = 4096     // bytes
	maxNames    = 16 << 20 // bytes of all names
	maxMetadata = 16 << 20 // bytes of config.dump and spec.dump
	blockSize   = 512      // bytes, of a tar
)

// contents are what is in an archive.
type contents struct {
	namespace, pod, uid, container string
	id                             string // of the container
	imageName, imageDigest         string
	bytes                          int64 // of all files
}

// readArchive verifies that an archive is complete and has nothing but files and directories
// with harmless names, and returns what is in it. It skips the memory.
func readArchive(name string) (*contents, error) {
	file, err := openArchive(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	found := map[string][]byte{}
	c := &contents{}
	err = walkArchive(file, func(e *entry) error {
		c.bytes += e.size
		return e.keep(found)
	})
	if err != nil {
		return nil, err
	}
	for _, required := range []string{"config.dump", "spec.dump", "checkpoint/inventory.img"} {
		if _, ok := found[required]; !ok {
			return nil, fmt.Errorf("%s is missing", required)
		}
	}
	return c, c.parse(found["config.dump"], found["spec.dump"])
}

// keep keeps the content of an entry with metadata.
func (e *entry) keep(found map[string][]byte) (err error) {
	switch e.name {
	case "checkpoint/inventory.img":
		found[e.name] = nil
	case "config.dump", "spec.dump":
		if e.size > maxMetadata {
			return fmt.Errorf("%s has %d bytes", e.name, e.size)
		}
		found[e.name], err = io.ReadAll(e)
	}
	return err
}

// openArchive opens a file that is no link.
func openArchive(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no file")
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// An entry is a file in an archive.
type entry struct {
	name       string
	size       int64
	mode       fs.FileMode
	start, end int64 // offsets in the archive; end is that of the next header
	io.Reader
}

// walkArchive calls each for every file of an archive, which need not be read to its end.
func walkArchive(file io.ReadSeeker, each func(*entry) error) error {
	reader := tar.NewReader(file)
	names := nameSet{seen: map[string]bool{}}
	end := int64(0)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return checkEnd(file, end)
		}
		if err != nil {
			return fmt.Errorf("after %d entries: %w", len(names.seen), err)
		}
		name, err := names.add(header)
		if err != nil {
			return err
		}
		start, err := file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		end = start + (header.Size+blockSize-1)/blockSize*blockSize
		if header.Typeflag == tar.TypeDir {
			end = start
			continue
		}
		e := &entry{
			name: name, size: header.Size, mode: fs.FileMode(header.Mode).Perm(), start: start, end: end, Reader: reader,
		}
		if err := each(e); err != nil {
			return err
		}
	}
}

// A nameSet are the names of an archive so far.
type nameSet struct {
	seen  map[string]bool
	bytes int
}

// add checks an entry, and returns its name.
func (s *nameSet) add(header *tar.Header) (string, error) {
	name, err := checkEntry(header)
	if err != nil {
		return "", err
	}
	if s.seen[name] {
		return "", fmt.Errorf("%.100q comes twice", name)
	}
	s.seen[name] = true
	s.bytes += len(name)
	if len(s.seen) > maxEntries || s.bytes > maxNames {
		return "", fmt.Errorf("there are more than %d entries, or their names have more than %d bytes", maxEntries, maxNames)
	}
	return name, nil
}

// checkEntry returns the name of an entry without a leading "./".
func checkEntry(header *tar.Header) (string, error) {
	if header.Typeflag != tar.TypeReg && header.Typeflag != tar.TypeDir {
		return "", fmt.Errorf("%.100q is neither a file nor a directory", header.Name)
	}
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return "", fmt.Errorf("%.100q is a sparse file", header.Name)
		}
	}
	name := path.Clean(header.Name)
	if len(name) > maxName || !fs.ValidPath(name) || strings.ContainsAny(name, "\\\x00") {
		return "", fmt.Errorf("%.100q is no name of a file below the checkpoint", header.Name)
	}
	if header.Size < 0 {
		return "", fmt.Errorf("%.100q has %d bytes", header.Name, header.Size)
	}
	return name, nil
}

// checkEnd checks that the last entry is followed by two blocks of zeros, which the reader has
// read, and by nothing but zeros. Without the blocks an archive that was cut off between two
// entries looks complete.
func checkEnd(file io.ReadSeeker, end int64) error {
	at, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if at != end+2*blockSize {
		return errors.New("the archive is cut off: the blocks that end it are missing")
	}
	rest, err := io.ReadAll(io.LimitReader(file, 1<<20))
	if err != nil {
		return err
	}
	if len(rest) == 1<<20 || strings.Trim(string(rest), "\x00") != "" {
		return errors.New("the archive has more behind its end: it has overwritten a longer one")
	}
	return nil
}

// parse reads the image and the identity. Annotations are those of containerd or of CRI-O,
// whose own are JSON in one of the OCI runtime's.
func (c *contents) parse(config, spec []byte) error {
	var image struct {
		ID              string `json:"id"`
		RootfsImageName string `json:"rootfsImageName"`
		RootfsImageRef  string `json:"rootfsImageRef"`
		RootfsImage     string `json:"rootfsImage"`
	}
	if err := json.Unmarshal(config, &image); err != nil {
		return fmt.Errorf("reading config.dump: %w", err)
	}
	c.id, c.imageName = image.ID, image.RootfsImageName
	if c.imageName == "" {
		c.imageName = image.RootfsImage
	}
	if _, digest, ok := strings.Cut(image.RootfsImageRef, "sha256:"); ok {
		c.imageDigest = "sha256:" + digest
	}
	var oci struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(spec, &oci); err != nil {
		return fmt.Errorf("reading spec.dump: %w", err)
	}
	const containerd, kubernetes = "io.kubernetes.cri.", "io.kubernetes."
	values := map[string]string{}
	for _, nested := range []string{"io.kubernetes.cri-o.Annotations", "io.kubernetes.cri-o.Labels"} {
		if text := oci.Annotations[nested]; text != "" {
			if err := json.Unmarshal([]byte(text), &values); err != nil {
				return fmt.Errorf("reading %s in spec.dump: %w", nested, err)
			}
		}
	}
	first := func(key, other string) string {
		if value := oci.Annotations[containerd+key]; value != "" {
			return value
		}
		return values[kubernetes+other]
	}
	c.namespace = first("sandbox-namespace", "pod.namespace")
	c.pod = first("sandbox-name", "pod.name")
	c.uid = first("sandbox-uid", "pod.uid")
	c.container = first("container-name", "container.name")
	return nil
}

// checkIdentity checks that an archive is of a container: the kubelet has only its names.
func (c *contents) checkIdentity(want runtime.Container) error {
	switch {
	case c.namespace != want.Namespace || c.pod != want.Pod || c.container != want.Name:
		return runtime.Errorf(runtime.DumpFailed, "the archive is of container %q of pod %q/%q", c.container, c.namespace, c.pod)
	case c.uid != want.PodUID:
		return runtime.Errorf(runtime.SourcePodReplaced, "the pod was replaced: the archive is of the one with UID %q, not %s",
			c.uid, want.PodUID)
	case c.id != "" && c.id != want.ID:
		return runtime.Errorf(runtime.ContainerNotRunning, "the container was restarted: the archive is of %q, not %s",
			c.id, want.ID)
	}
	return nil
}
