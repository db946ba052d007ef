package install

import (
	"fmt"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/ticket"
)

// target chooses the file to edit.
func (c *containerd) target(name string) (*configFile, error) {
	if dir := c.dropInDir(); dir != "" {
		return c.dropInFile(filepath.Join(dir, dropIn), name)
	}
	chosen := c.files[0]
	for _, f := range c.definers() {
		if c.major != 2 || tableAt(f.base.tree, "plugins", f.plugin, "containerd", "runtimes", name) != nil {
			chosen = f
		}
	}
	for _, generated := range []string{"DO NOT EDIT", "k0s_managed=true"} {
		if strings.Contains(chosen.base.text, generated) {
			return nil, fmt.Errorf("%s is generated (it says %q), so that changes would be lost: import a directory of drop-in files in it, "+
				"with the means of your distribution, or name another file with --config", chosen.path, generated)
		}
	}
	return chosen, nil
}

// dropInDir returns the directory from which our drop-in file would be imported, or an empty
// string if there is none, or if the version of containerd may not merge it.
func (c *containerd) dropInDir() string {
	if c.major != 2 {
		return ""
	}
	root := c.files[0]
	for _, element := range listAt(root.now.tree, "imports") {
		pattern, _ := element.(string)
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(root.path), pattern)
		}
		dir, base := filepath.Dir(pattern), filepath.Base(pattern)
		if matches, err := path.Match(base, dropIn); err == nil && matches && !strings.Contains(dir, "*") {
			return dir
		}
	}
	return ""
}

// dropInFile returns our file among the imported ones, which need not exist yet. It must be
// merged after all others that configure the handler.
func (c *containerd) dropInFile(name, handler string) (*configFile, error) {
	for _, f := range c.definers() {
		before := f == c.files[0] || filepath.Dir(f.path) == filepath.Dir(name) && f.path <= name
		if !before && tableAt(f.base.tree, "plugins", f.plugin, "containerd", "runtimes", handler) != nil {
			return nil, fmt.Errorf("%s configures the handler %s and may be imported after %s: move the settings to a file that is imported earlier",
				f.path, handler, name)
		}
	}
	for _, f := range c.files {
		if f.path == name {
			return f, nil
		}
	}
	file, err := c.node.readConfig(name)
	if err != nil {
		return nil, err
	}
	file.plugin = c.files[0].plugin
	c.files = append(c.files, file)
	return file, nil
}

// plan returns the texts with which handlers call the wrapper.
func (c *containerd) plan(wanted []wantedHandler) (map[*configFile]*document, error) {
	settings, expected := map[*configFile][]setting{}, clone(c.effective(baseTree))
	for _, w := range wanted {
		file, err := c.target(w.copyOf.name)
		if err != nil {
			return nil, err
		}
		below := []string{"containerd", "runtimes", w.name}
		own := c.settings(below, w)
		if w.name != w.copyOf.name && w.copyOf.table == nil {
			// Containerd 1 drops its default handler when there is another one.
			own = append(own, setting{[]string{"containerd", "runtimes", w.copyOf.name, "runtime_type"}, runcType})
		}
		for _, s := range own {
			put(expected, s.path, s.value)
			settings[file] = append(settings[file], setting{slices.Concat([]string{"plugins", file.plugin}, s.path), s.value})
		}
	}
	edited := map[*configFile]*document{}
	for file, list := range settings {
		document, err := file.edit(c.version(), list)
		if err != nil {
			return nil, err
		}
		edited[file] = document
	}
	got := c.effective(func(f *configFile) table {
		if document := edited[f]; document != nil {
			return document.tree
		}
		return f.base.tree
	})
	if !reflect.DeepEqual(got, expected) {
		return nil, fmt.Errorf("other files that %s imports override the settings of the handler: move them into one file", c.files[0].path)
	}
	return edited, nil
}

// settings are those of one handler.
func (c *containerd) settings(below []string, w wantedHandler) []setting {
	var all []setting
	h := w.copyOf.table
	if w.name != w.copyOf.name { // a handler of our own
		all = flatten(below, h)
		all = slices.DeleteFunc(all, func(s setting) bool {
			last := s.path[len(s.path)-1]
			return last == "BinaryName" || last == "pod_annotations" || last == "runtime_type"
		})
	}
	if w.name != w.copyOf.name || stringAt(h, "runtime_type") == "" {
		all = append([]setting{{slices.Concat(below, []string{"runtime_type"}), runcType}}, all...)
	}
	if patterns := listAt(h, "pod_annotations"); w.name != w.copyOf.name || !passesAnnotation(patterns) {
		if !passesAnnotation(patterns) {
			patterns = append(slices.Clone(patterns), annotations)
		}
		all = append(all, setting{slices.Concat(below, []string{"pod_annotations"}), patterns})
	}
	return append(all, setting{slices.Concat(below, []string{"options", "BinaryName"}), w.wrapper})
}

// passesAnnotation reports whether containerd passes our annotation on; it matches the
// patterns with path.Match.
func passesAnnotation(patterns []any) bool {
	return slices.ContainsFunc(patterns, func(pattern any) bool {
		text, _ := pattern.(string)
		matches, err := path.Match(text, ticket.Annotation)
		return err == nil && matches
	})
}
