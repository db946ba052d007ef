package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/devcluster/internal/image"
	"github.com/holdfast-io/holdfast/devcluster/internal/node"
)

type loadOptions struct {
	name       string
	archive    string
	files      []string
	programs   []string
	entrypoint []string
}

func newLoad() *cobra.Command {
	var o loadOptions
	command := &cobra.Command{
		Use:   "load {IMAGE --file PATH=HOSTFILE... [--program PATH...] | --archive FILE}",
		Short: "Load an image into every node: an archive, or one built from files of this machine",
		Example: `  devcluster load --archive bin/holdfast.tar
  devcluster load example.com/driver:dev --file /driver=bin/driver \
      --program /usr/sbin/mkfs.ext4 --entrypoint /driver`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if (o.archive == "") != (len(args) == 1) {
				return errors.New("name either an IMAGE to build or an --archive")
			}
			return o.load(strings.Join(args, ""), command.ErrOrStderr())
		},
	}
	nameFlag(command, &o.name)
	f := command.Flags()
	f.StringVar(&o.archive, "archive", "", "image archive to load, as docker save or make image writes it")
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
	temp := filepath.Join(nodes[0], "var", "tmp")
	var file string
	if o.archive != "" {
		name = o.archive
		file, err = copyArchive(o.archive, temp)
	} else {
		file, err = o.build(name, dir.Tree(), temp)
	}
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file) }() // What stays is deleted with the cluster.
	for _, state := range nodes {
		if err := loadInto(state, file); err != nil {
			return fmt.Errorf("loading %s into node %s: %w", name, filepath.Base(state), err)
		}
		fmt.Fprintf(progress, "devcluster: image %s loaded into node %s\n", name, filepath.Base(state))
	}
	return nil
}

func (o *loadOptions) spec(name, tree string) (image.Spec, error) {
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
	for _, p := range o.programs {
		if err := spec.AddProgram(tree, p); err != nil {
			return spec, err
		}
	}
	return spec, nil
}

// copyArchive copies an archive into a new file in dir, from where nodes can link to it.
func copyArchive(archive, dir string) (string, error) {
	from, err := os.Open(archive)
	if err != nil {
		return "", fmt.Errorf("reading the image: %w", err)
	}
	defer func() { _ = from.Close() }()
	f, err := os.CreateTemp(dir, "image-*.tar")
	if err != nil {
		return "", fmt.Errorf("making a file for the image: %w", err)
	}
	_, err = io.Copy(f, from)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("copying the image: %w", err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// build writes the image that the flags describe into a new file in dir.
func (o *loadOptions) build(name, tree, dir string) (string, error) {
	spec, err := o.spec(name, tree)
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, "image-*.tar")
	if err != nil {
		return "", fmt.Errorf("making a file for the image: %w", err)
	}
	if err := errors.Join(f.Close(), image.Write(spec, f.Name())); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// loadInto imports an image's file, which may lie in another node, into a node.
func loadInto(state, file string) error {
	inside := "/var/tmp/loading-" + filepath.Base(file)
	outside := filepath.Join(state, inside)
	if err := os.Link(file, outside); err != nil {
		return fmt.Errorf("giving the node the image: %w", err)
	}
	defer func() { _ = os.Remove(outside) }() // What stays goes with the cluster.
	cmd, err := node.Command(state, "ctr", "--namespace", "k8s.io", "images", "import", "--local", inside)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("importing the image: %w: %s", err, out)
	}
	return nil
}
