package install

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
)

const (
	crioName   = "cri-o"
	crioConfig = "/etc/crio/crio.conf"
	crioDropIn = "99-holdfast.conf"
)

// crio is the configuration of CRI-O: a file and a directory of drop-in files, in which a
// handler's table replaces that of earlier files as a whole.
//
// CRI-O passes all annotations of a pod to the runtime, except those that it knows itself
// and that allowed_annotations does not have. It rejects others there.
type crio struct {
	files []*configFile // in the order in which they are merged
	ours  *configFile
}

func newCRIO(n *node, config string, p *process) (*crio, error) {
	config, dir := crioPaths(config, p)
	names, err := filesBelow(n, dir)
	if err != nil {
		return nil, err
	}
	ours := filepath.Join(dir, crioDropIn)
	if !slices.Contains(names, ours) {
		names = append(names, ours)
		slices.Sort(names)
	}
	c := &crio{}
	for _, name := range append([]string{config}, names...) {
		file, err := n.readConfig(name)
		if err != nil {
			return nil, err
		}
		if c.files = append(c.files, file); name == ours {
			c.ours = file
		}
	}
	return c, nil
}

// crioPaths returns the file and the directory of the configuration.
func crioPaths(config string, p *process) (file, dir string) {
	if p != nil {
		dir = p.option("--config-dir", "-d")
		if config == "" {
			config = p.option("--config", "-c")
		}
	}
	if config == "" {
		config = crioConfig
	}
	if dir == "" {
		dir = config + ".d"
	}
	return config, dir
}

// filesBelow returns the files below a directory of the node in the order of CRI-O.
func filesBelow(n *node, dir string) ([]string, error) {
	resolved, err := n.resolve(dir)
	if err != nil {
		return nil, err
	}
	var all []string
	err = fs.WalkDir(os.DirFS(n.real(resolved)), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, filepath.Join(dir, path))
		}
		return ignoreMissing(err)
	})
	if err != nil {
		return nil, fmt.Errorf("reading the drop-in files of CRI-O: %w", err)
	}
	return all, nil
}

// effective returns the handlers by name, and the name of the default one if the files have
// one.
func (c *crio) effective(tree func(*configFile) table) (runtimes table, defaultName string) {
	runtimes = table{}
	for _, f := range c.files {
		maps.Copy(runtimes, tableAt(tree(f), "crio", "runtime", "runtimes"))
		if name := stringAt(tree(f), "crio", "runtime", "default_runtime"); name != "" {
			defaultName = name
		}
	}
	return runtimes, defaultName
}

func (c *crio) name() string { return crioName }

func (c *crio) configFiles() []*configFile { return c.files }

func (c *crio) defaultHandler() (string, error) {
	runtimes, name := c.effective(baseTree)
	if name != "" {
		return name, nil
	}
	if len(runtimes) == 1 {
		return slices.Collect(maps.Keys(runtimes))[0], nil
	}
	return "", fmt.Errorf("default_runtime is not set in %s and its drop-in files, and CRI-O's own default depends on its version: "+
		"name the handlers with --handler", c.files[0].path)
}

func (c *crio) called() map[string]string {
	all := map[string]string{}
	runtimes, _ := c.effective(nowTree)
	for name := range runtimes {
		all[name] = stringAt(runtimes, name, "runtime_path")
	}
	return all
}

func (c *crio) handler(name string) (handler, error) {
	runtimes, _ := c.effective(baseTree)
	h := tableAt(runtimes, name)
	kind := stringAt(h, "runtime_type")
	inherits, _ := h["inherit_default_runtime"].(bool)
	switch {
	case h == nil:
		return handler{}, fmt.Errorf("handler %s: %w: add [crio.runtime.runtimes.%[1]s], as crio config prints it, or choose another with --handler", name, errNoHandler)
	case kind != "" && kind != "oci":
		return handler{}, fmt.Errorf("handler %s has runtime_type %q, which does not call runc or crun: choose another with --handler", name, kind)
	case inherits:
		return handler{}, fmt.Errorf("handler %s has inherit_default_runtime: install the wrapper for the default handler, from which it inherits", name)
	case len(tableAt(h, "platform_runtime_paths")) > 0:
		return handler{}, fmt.Errorf("handler %s has platform_runtime_paths, which override runtime_path: remove them", name)
	}
	return handler{name: name, table: h, program: stringAt(h, "runtime_path"), usual: name}, nil
}

// plan returns the text of our drop-in file. It has all settings of the handlers, because it
// replaces their tables.
func (c *crio) plan(wanted []wantedHandler) (map[*configFile]*document, error) {
	expected, _ := c.effective(baseTree)
	expected = clone(expected)
	var settings []setting
	for _, w := range wanted {
		own := clone(w.copyOf.table)
		own["runtime_path"] = w.wrapper
		expected[w.name] = own
		settings = append(settings, flatten([]string{"crio", "runtime", "runtimes", w.name}, own)...)
	}
	edited, err := c.ours.edit(0, settings)
	if err != nil {
		return nil, err
	}
	got, _ := c.effective(func(f *configFile) table {
		if f == c.ours {
			return edited.tree
		}
		return f.base.tree
	})
	if !reflect.DeepEqual(got, expected) {
		return nil, fmt.Errorf("another drop-in file of CRI-O is read after %s and configures the same handler: rename it, so that it comes before", c.ours.path)
	}
	return map[*configFile]*document{c.ours: edited}, nil
}

// tempDir is not the directory of drop-in files: CRI-O reads every file there.
func (c *crio) tempDir(file *configFile) string {
	return filepath.Dir(filepath.Dir(file.path))
}

// tasks is empty: CRI-O looks up what to call in its configuration each time.
func (c *crio) tasks() string { return "" }
