// Command mkimage writes a container image of local files into an archive, as
// "docker save" does, without a container engine. "docker load", "kind load
// image-archive", "ctr images import" and "devcluster load --archive" read it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/holdfast-io/holdfast/devcluster/internal/image"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	spec := image.Spec{Files: map[string]string{}, Links: map[string]string{}}
	var output string
	var programs []string
	flags := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	flags.StringVar(&spec.Name, "name", "", "`name` of the image")
	flags.StringVar(&output, "output", "", "archive to write, a `file`")
	flags.Func("file", "a file of the image: `path=source`", pair(spec.Files))
	flags.Func("link", "a symbolic link of the image: `path=target`", pair(spec.Links))
	flags.Func("program", "`path` of a program of this machine to add, with its libraries", func(s string) error {
		programs = append(programs, s)
		return nil
	})
	flags.Func("entrypoint", "`program` that the image runs, or its next argument", func(s string) error {
		spec.Entrypoint = append(spec.Entrypoint, s)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("reading the flags: %w", err)
	}
	if flags.NArg() > 0 || output == "" || len(spec.Files) == 0 {
		return errors.New("flags -name, -output and -file are required, and there are no arguments")
	}
	for _, p := range programs {
		if err := spec.AddProgram("/", p); err != nil {
			return fmt.Errorf("adding a program: %w", err)
		}
	}
	if err := image.Write(spec, output); err != nil {
		return fmt.Errorf("writing the image: %w", err)
	}
	return nil
}

// pair reads "path=value" into a map.
func pair(into map[string]string) func(string) error {
	return func(s string) error {
		path, value, ok := strings.Cut(s, "=")
		if !ok || !strings.HasPrefix(path, "/") {
			return fmt.Errorf("%q is not /path=value", s)
		}
		into[path] = value
		return nil
	}
}
