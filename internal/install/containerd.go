package install

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	containerdName   = "containerd"
	containerdConfig = "/etc/containerd/config.toml"
	// dropIn is the name of our file among imported ones. The last one wins.
	dropIn = "zz-holdfast.toml"
	// annotations is the pattern of the annotations that the wrapper reads.
	annotations = "checkpoint.example.com/*"
	runcType    = "io.containerd.runc.v2"
)

// The keys of the CRI plugin by the version of the configuration. Containerd 2.4 reads version
// 4 as well, which moves only keys of the server.
var criPlugins = map[int64]string{
	2: "io.containerd.grpc.v1.cri",
	3: "io.containerd.cri.v1.runtime",
	4: "io.containerd.cri.v1.runtime",
}

// containerd is the configuration of containerd.
//
// Containerd 1.6 and 1.7 replace the whole table of a plugin by that of the last imported file
// that has it. Containerd 2 merges tables key by key, and replaces arrays within them.
type containerd struct {
	node    *node
	process *process
	// major is the version of containerd, 0 if it is not known.
	major int
	files []*configFile // in the order in which they are merged
}

func newContainerd(ctx context.Context, n *node, config string, p *process) (*containerd, error) {
	c := &containerd{node: n, process: p}
	if config == "" && p != nil {
		config = p.option("--config", "-c")
	}
	if config == "" {
		config = containerdConfig
	}
	if err := c.load(config); err != nil {
		return nil, err
	}
	if err := c.findVersion(ctx); err != nil {
		return nil, err
	}
	return c, c.check()
}

// load reads a file and those that it imports, in containerd's order.
func (c *containerd) load(config string) error {
	loaded := map[string]bool{}
	for pending := []string{config}; len(pending) > 0; {
		name := pending[0]
		pending = pending[1:]
		if loaded[name] {
			continue
		}
		loaded[name] = true
		file, err := c.node.readConfig(name)
		if err != nil {
			return err
		}
		if !file.exists && len(c.files) > 0 {
			return fmt.Errorf("%s, which %s imports, does not exist: containerd will not start with that", name, c.files[0].path)
		}
		if err := file.findPlugin(len(c.files) > 0); err != nil {
			return err
		}
		c.files = append(c.files, file)
		imports, err := c.imports(file)
		if err != nil {
			return err
		}
		pending = append(pending, imports...)
	}
	return nil
}

// findPlugin sets the key of the CRI plugin in a file.
func (f *configFile) findPlugin(imported bool) error {
	version, _ := at(f.now.tree, "version").(int64)
	// Imported files need not have a version. Their plugins have the names of version 2.
	if version == 0 && (imported || len(f.base.tree) == 0) {
		version = 2
	}
	if f.plugin = criPlugins[version]; f.plugin == "" {
		return fmt.Errorf("%s has version %d of containerd's configuration; supported are 2, 3 and 4: "+
			"convert it with containerd config migrate", f.path, version)
	}
	return nil
}

// imports returns the files that a file imports.
func (c *containerd) imports(file *configFile) ([]string, error) {
	var all []string
	for _, element := range listAt(file.now.tree, "imports") {
		pattern, _ := element.(string)
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(file.path), pattern)
		}
		if !strings.Contains(pattern, "*") {
			all = append(all, filepath.Clean(pattern))
			continue
		}
		found, err := c.node.glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("%s imports %q: %w", file.path, pattern, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

var versionNumber = regexp.MustCompile(`\bv?(\d+)\.(\d+)\.\d+`)

// findVersion asks the program for its version, unless the configuration says enough.
func (c *containerd) findVersion(ctx context.Context) error {
	if c.files[0].exists && c.files[0].plugin != criPlugins[2] {
		c.major = 2
		return nil
	}
	dirs := nodePath
	if c.process != nil {
		dirs = c.process.path + ":" + dirs
	}
	program := c.node.lookPath(containerdName, dirs)
	if program == "" {
		return nil
	}
	out, err := c.node.run(ctx, program, "--version")
	if err != nil {
		return nil //nolint:nilerr // the version is only needed in cases in which plan says so
	}
	c.major, err = majorVersion(out)
	return err
}

// majorVersion returns the major version in what containerd says about itself, or 0.
func majorVersion(text string) (int, error) {
	found := versionNumber.FindStringSubmatch(text)
	if found == nil {
		return 0, nil
	}
	major, _ := strconv.Atoi(found[1]) // They are digits.
	minor, _ := strconv.Atoi(found[2])
	if major < 1 || major == 1 && minor < 6 || major > 2 {
		return 0, fmt.Errorf("containerd %s is not supported; supported are 1.6, 1.7 and 2.x", found[0])
	}
	return major, nil
}

// check refuses configurations that are not understood.
func (c *containerd) check() error {
	for _, f := range c.files {
		disabled := listAt(f.now.tree, "disabled_plugins")
		if slices.Contains(disabled, any("cri")) || slices.Contains(disabled, any(f.plugin)) {
			return fmt.Errorf("%s disables the CRI plugin of containerd, so no kubelet uses this containerd: "+
				"name the configuration of the one that it uses with --config", f.path)
		}
		for _, pattern := range listAt(f.now.tree, "imports") {
			if p, _ := pattern.(string); c.major != 2 && strings.Contains(p, "*") && !filepath.IsAbs(p) {
				return fmt.Errorf("%s imports %q, which containerd 1 does not look for in the directory of the file: write the whole path", f.path, p)
			}
		}
	}
	if all := c.definers(); c.major == 0 && len(all) > 1 {
		return fmt.Errorf("the CRI plugin is configured in %s and in %s, the versions of containerd merge such files differently, "+
			"and the version could not be found out: move the settings into one file", all[0].path, all[1].path)
	}
	return nil
}

// definers are the files that configure the CRI plugin, without our own.
func (c *containerd) definers() []*configFile {
	return slices.DeleteFunc(slices.Clone(c.files), func(f *configFile) bool {
		return tableAt(f.base.tree, "plugins", f.plugin) == nil
	})
}

// effective returns the settings of the CRI plugin, as containerd merges them.
func (c *containerd) effective(tree func(*configFile) table) table {
	all := table{}
	for _, f := range c.files {
		own := tableAt(tree(f), "plugins", f.plugin)
		switch {
		case own == nil:
		case c.major == 1:
			all = clone(own)
		default:
			merge(all, own)
		}
	}
	return all
}

func merge(into, from table) {
	for key, value := range from {
		inner, isTable := value.(table)
		old, wasTable := into[key].(table)
		switch {
		case isTable && wasTable:
			merge(old, inner)
		case isTable:
			into[key] = clone(inner)
		default:
			into[key] = value
		}
	}
}

func baseTree(f *configFile) table { return f.base.tree }
func nowTree(f *configFile) table  { return f.now.tree }

func (c *containerd) name() string { return containerdName }

func (c *containerd) configFiles() []*configFile { return c.files }

func (c *containerd) defaultHandler() (string, error) {
	if name := stringAt(c.effective(baseTree), "containerd", "default_runtime_name"); name != "" {
		return name, nil
	}
	return "runc", nil
}

// called returns the programs that the handlers call, by handler.
func (c *containerd) called() map[string]string {
	all := map[string]string{}
	runtimes := tableAt(c.effective(nowTree), "containerd", "runtimes")
	for name := range runtimes {
		all[name] = stringAt(runtimes, name, "options", "BinaryName")
	}
	return all
}

// handler returns what a handler calls without us.
func (c *containerd) handler(name string) (handler, error) {
	all := c.effective(baseTree)
	h := tableAt(all, "containerd", "runtimes", name)
	defaultName, err := c.defaultHandler()
	if err != nil {
		return handler{}, err
	}
	kind := stringAt(h, "runtime_type")
	switch {
	case h == nil && name != "runc":
		return handler{}, fmt.Errorf("handler %s: %w: %s has no [plugins.%s.containerd.runtimes.%s]",
			name, errNoHandler, c.files[0].path, quote(c.files[0].plugin), name)
	case name == defaultName && stringAt(all, "containerd", "default_runtime", "runtime_type") != "":
		return handler{}, errors.New("containerd.default_runtime, which containerd 1.3 deprecated, overrides the handler " + name +
			": move it to containerd.runtimes and name it in default_runtime_name")
	case kind == "" && (h == nil || c.major == 2): // the default type
	case kind != runcType:
		return handler{}, fmt.Errorf("handler %s has runtime_type %q, which does not call runc or crun; only %s does: "+
			"choose another handler with --handler", name, kind, runcType)
	}
	return handler{name: name, table: h, program: stringAt(h, "options", "BinaryName"), usual: "runc"}, nil
}

// version is the version of the configuration for a new file.
func (c *containerd) version() int64 {
	if version, ok := at(c.files[0].base.tree, "version").(int64); ok {
		return version
	}
	return 2 // All supported versions of containerd read it.
}

func (c *containerd) tempDir(file *configFile) string { return filepath.Dir(file.path) }

// tasks is below containerd's state directory. The shim writes the path of the OCI runtime
// into the file runtime of each task.
func (c *containerd) tasks() string {
	state := "/run/containerd"
	for _, f := range c.files {
		if dir := stringAt(f.now.tree, "state"); dir != "" {
			state = dir
		}
	}
	if c.process != nil && c.process.option("--state") != "" {
		state = c.process.option("--state")
	}
	return filepath.Join(state, "io.containerd.runtime.v2.task")
}
