package install

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// A configFile is one file of the configuration of a CRI runtime.
type configFile struct {
	path   string
	exists bool
	text   string    // as it is now
	now    *document // what the runtime reads
	base   *document // the same without our lines
	plugin string    // the key of the CRI plugin in it, for containerd
}

// readConfig reads a file that may be missing.
func (n *node) readConfig(path string) (*configFile, error) {
	f := &configFile{path: path}
	data, err := n.read(path)
	switch {
	case err == nil:
		f.exists = true
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	f.text = string(data)
	if f.now, err = parse(f.text); err != nil {
		return nil, fmt.Errorf("%s cannot be parsed, so nothing was changed: correct it first: %w", path, err)
	}
	if f.base, err = parse(withoutOurs(f.text)); err != nil {
		return nil, fmt.Errorf("%s cannot be parsed without the lines that end with %q: remove or correct them: %w", path, mark, err)
	}
	return f, nil
}

// withoutOurs is strip. If the administrator has added lines to a file of ours, they keep the
// version that they need.
func withoutOurs(text string) string {
	rest := strip(text)
	if strings.TrimSpace(rest) == "" || !strings.HasPrefix(text, created) {
		return rest
	}
	for line := range strings.SplitAfterSeq(text, "\n") {
		if isOurs(line) && strings.HasPrefix(line, "version ") {
			return strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), mark)) + "\n" + rest
		}
	}
	return rest
}

// isOurs reports whether nothing would be left of the file without our lines, and we have
// created it.
func (f *configFile) isOurs() bool {
	return strings.HasPrefix(f.text, created) && strings.TrimSpace(f.base.text) == ""
}

// newFile returns a document with the first lines of a file of ours.
func newFile(version int64) (*document, error) {
	text := created + "\n"
	if version != 0 {
		text += fmt.Sprintf("version = %d %s\n", version, mark)
	}
	return parse(text)
}

// edit returns the text of the file with the settings. A file that does not exist is created
// with this version.
func (f *configFile) edit(version int64, settings []setting) (*document, error) {
	if !f.exists || f.isOurs() {
		header, err := newFile(version)
		if err != nil {
			return nil, err
		}
		return header.setNew(settings)
	}
	if len(f.base.tree) == 0 && version != 0 {
		settings = append([]setting{{[]string{"version"}, version}}, settings...)
	}
	edited, err := f.base.set(settings...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return edited, nil
}
