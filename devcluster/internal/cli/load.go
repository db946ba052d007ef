package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/devcluster/internal/cluster"
	"github.com/holdfast-io/holdfast/devcluster/internal/image"
	"github.com/holdfast-io/holdfast/devcluster/internal/node"
)

type loadOptions struct {
	name       string
	files      []string
	programs   []string
	entrypoint []string
}

func newLoad() *cobra.Command {
	var o loadOptions
	command := &cobra.Command{
		Use:   "load IMAGE --file PATH=HOSTFILE... [--program PATH...]",
		Short: "Build an image from files of this machine and load it into every node",
		Example: `  devcluster load example.com/driver:dev --file /driver=bin/driver \
      --program /usr/sbin/mkfs.ext4 --entrypoint /driver`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return o.load(args[0], command.ErrOrStderr())
		},
	}
	nameFlag(command, &o.name)
	f := command.Flags()
	f.StringArrayVar(&o.files, "file", nil, "absolute path in the image = file of this machine")
	f.StringArrayVar(&o.programs, "program", nil, "program of the nodes' Debian tree to add, with its libraries")
	f.StringArrayVar(&o.entrypoint, "entrypoint", nil, "program that the image runs, then its arguments (default: the first --file)")
	return command
}

func (o *loadOptions) load(name string, progress io.Writer) error {
	dir, err := running(o.name)
	if err != nil {
		return err
	}
	nodes := dir.Nodes()
	if len(nodes) == 0 {
		return fmt.Errorf("cluster %s has no nodes to load an image into", o.name)
	}
	spec, err := o.spec(name)
	if err != nil {
		return err
	}
	for _, state := range nodes {
		if err := loadInto(state, spec); err != nil {
			return fmt.Errorf("loading %s into node %s: %w", name, filepath.Base(state), err)
		}
		fmt.Fprintf(progress, "devcluster: image %s loaded into node %s\n", name, filepath.Base(state))
	}
	return nil
}

func (o *loadOptions) spec(name string) (image.Spec, error) {
	spec := image.Spec{Name: name, Files: map[string]string{}, Entrypoint: o.entrypoint}
	for _, f := range o.files {
		to, from, ok := strings.Cut(f, "=")
		if !ok || !filepath.IsAbs(to) {
			return spec, fmt.Errorf("--file %s: give it as /path/in/image=file", f)
		}
		spec.Files[to] = from
		if len(spec.Entrypoint) == 0 {
			spec.Entrypoint = []string{to}
		}
	}
	if len(spec.Files) == 0 {
		return spec, fmt.Errorf("image %s: an image needs a --file", name)
	}
	if len(o.programs) == 0 {
		return spec, nil
	}
	tree, err := cluster.Tree(io.Discard, func() {})
	if err != nil {
		return spec, err
	}
	for _, p := range o.programs {
		if err := spec.AddProgram(tree, p); err != nil {
			return spec, err
		}
	}
	return spec, nil
}

// loadInto writes the image into the node's /var/tmp and imports it there.
func loadInto(state string, spec image.Spec) error {
	f, err := os.CreateTemp(filepath.Join(state, "var", "tmp"), "image-*.tar")
	if err != nil {
		return fmt.Errorf("making a file for the image: %w", err)
	}
	defer os.Remove(f.Name())
	if err := f.Close(); err != nil {
		return err
	}
	if err := image.Write(spec, f.Name()); err != nil {
		return err
	}
	cmd, err := node.Command(state, "ctr", "--namespace", "k8s.io", "images", "import", "--local", "/var/tmp/"+filepath.Base(f.Name()))
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("importing the image: %w: %s", err, out)
	}
	return nil
}
