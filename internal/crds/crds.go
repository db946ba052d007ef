// Package crds embeds the CustomResourceDefinitions that a cluster needs, as YAML.
//
// Those of snapshot.storage.k8s.io and groupsnapshot.storage.k8s.io are copies,
// byte for byte, of what https://github.com/kubernetes-csi/external-snapshotter
// publishes under the Apache License 2.0, in the version of go.mod. "make crds" copies
// them and "make verify" compares them. The others are generated from the types in api.
package crds

import (
	"embed"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Every file has the name that controller-gen gives it, GROUP_PLURAL.yaml. It contains
// one CustomResourceDefinition and starts with a document separator.
//
//go:embed *.yaml
var files embed.FS

// Groups returns the API groups of all definitions, sorted.
func Groups() []string {
	var all []string
	for _, file := range names() {
		all = append(all, groupOf(file))
	}
	return slices.Compact(all)
}

// Write writes the definitions of the given API groups as YAML documents, or all
// without groups. For an unknown group it returns an error and writes nothing.
func Write(w io.Writer, groups ...string) error {
	known := Groups()
	for _, group := range groups {
		if !slices.Contains(known, group) {
			return fmt.Errorf("unknown API group %q; known are %s", group, strings.Join(known, ", "))
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

// names returns the names of all files, sorted.
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
