// Package crds has the CustomResourceDefinitions that a cluster needs, as the
// text that is applied to it.
//
// Those of snapshot.storage.k8s.io and groupsnapshot.storage.k8s.io are copies,
// byte for byte, of what https://github.com/kubernetes-csi/external-snapshotter
// publishes under the Apache License 2.0 in the module that go.mod names; "make
// crds" copies them and "make verify" compares them. Those of holdfast.io are
// ours.
package crds

import (
	"embed"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Every file is named as controller-gen names it, GROUP_PLURAL.yaml, holds one
// CustomResourceDefinition and begins with a line that separates documents.
//
//go:embed *.yaml
var files embed.FS

// Groups are the API groups that there are definitions of, sorted.
func Groups() []string {
	var all []string
	for _, file := range names() {
		all = append(all, groupOf(file))
	}
	return slices.Compact(all)
}

// Write writes the definitions of the given API groups as YAML documents, or all
// if none is given. A group that there is nothing of is an error, and then
// nothing is written.
func Write(w io.Writer, groups ...string) error {
	known := Groups()
	for _, group := range groups {
		if !slices.Contains(known, group) {
			return fmt.Errorf("there are no definitions of API group %q; there are some of %s", group, strings.Join(known, ", "))
		}
	}
	for _, file := range names() {
		if len(groups) > 0 && !slices.Contains(groups, groupOf(file)) {
			continue
		}
		text, err := files.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading the definitions: %w", err)
		}
		if _, err := w.Write(text); err != nil {
			return fmt.Errorf("writing the definitions: %w", err)
		}
	}
	return nil
}

// names are those of all files, sorted. They are part of the program, so none
// can be missing.
func names() []string {
	all, err := fs.Glob(files, "*.yaml")
	if err != nil {
		panic(err) // The pattern is malformed.
	}
	slices.Sort(all)
	return all
}

func groupOf(file string) string {
	group, _, _ := strings.Cut(file, "_")
	return group
}
