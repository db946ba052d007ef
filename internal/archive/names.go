package archive

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Limits of a file name, in bytes and elements.
const (
	maxName  = 1024
	maxDepth = 16
)

// checkName rejects names that are not a plain relative path: an archive is hostile input.
func checkName(name string) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("the file name %.100q… has %d bytes, and at most %d are permitted", name, len(name), maxName)
	case strings.Count(name, "/") >= maxDepth:
		return fmt.Errorf("the file name %q has more than %d elements", name, maxDepth)
	case name == ".", !fs.ValidPath(name), strings.Contains(name, `\`), !isPrintable(name):
		return fmt.Errorf("the file name %q is not permitted: it must be a relative path without . and .., backslashes and control characters", name)
	}
	return nil
}

// A nameSet has the names of files so far.
type nameSet struct {
	files, directories map[string]bool
}

func newNameSet() *nameSet {
	return &nameSet{files: map[string]bool{}, directories: map[string]bool{}}
}

// add rejects a name that cannot be extracted beside the others.
func (s *nameSet) add(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if s.files[name] || s.directories[name] {
		return fmt.Errorf("the file name %q is there twice", name)
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if s.files[dir] {
			return fmt.Errorf("the file name %q is inside of another file", name)
		}
		s.directories[dir] = true
	}
	s.files[name] = true
	return nil
}

var (
	pagesName   = regexp.MustCompile(`^checkpoint/pages-(0|[1-9][0-9]{0,9})\.img$`)
	pagemapName = regexp.MustCompile(`^checkpoint/pagemap-(shmem-)?(0|[1-9][0-9]{0,19})\.img$`)
)

// isPages reports whether a file has raw pages of memory.
func isPages(name string) bool { return pagesName.MatchString(name) }

// pagesFile is the name of the pages file to which a pagemap with this pages_id belongs.
func pagesFile(id uint32) string { return fmt.Sprintf("checkpoint/pages-%d.img", id) }

// An AddressSpace is what addresses of pages refer to: the memory of a process, or a segment
// of shared memory, whose addresses start at 0.
type AddressSpace struct {
	Shared bool
	// ID is the number in the name of the image: checkpoint/pagemap-ID.img or
	// checkpoint/pagemap-shmem-ID.img. For a process it is the PID in the container.
	ID uint64
}

// String is "process 1" or "shared memory 1".
func (s AddressSpace) String() string {
	if s.Shared {
		return fmt.Sprintf("shared memory %d", s.ID)
	}
	return fmt.Sprintf("process %d", s.ID)
}

// addressSpaceOf returns the address space that a pagemap describes, and whether the file is
// a pagemap.
func addressSpaceOf(name string) (AddressSpace, bool) {
	parts := pagemapName.FindStringSubmatch(name)
	if parts == nil {
		return AddressSpace{}, false
	}
	id, err := strconv.ParseUint(parts[2], 10, 64)
	return AddressSpace{Shared: parts[1] != "", ID: id}, err == nil
}
