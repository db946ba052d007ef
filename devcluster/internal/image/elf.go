package image

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

const goarch = runtime.GOARCH

// libraryFolders are where Debian keeps shared libraries.
var libraryFolders = map[string][]string{
	"amd64": {"/usr/lib/x86_64-linux-gnu", "/usr/lib"},
	"arm64": {"/usr/lib/aarch64-linux-gnu", "/usr/lib"},
}

// closure lists a program, its interpreter and every library that it is
// linked to, directly or not.
func closure(tree, program string) ([]string, error) {
	seen := map[string]bool{}
	queue := []string{program}
	var files []string
	for len(queue) > 0 {
		file := queue[0]
		queue = queue[1:]
		if seen[file] {
			continue
		}
		seen[file] = true
		files = append(files, file)
		needed, err := needs(tree, file)
		if err != nil {
			return nil, err
		}
		queue = append(queue, needed...)
	}
	return files, nil
}

// needs lists what one ELF file asks the loader for.
func needs(tree, file string) ([]string, error) {
	f, err := elf.Open(filepath.Join(tree, resolve(tree, file)))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	defer func() { _ = f.Close() }()
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("reading the libraries of %s: %w", file, err)
	}
	var found []string
	for _, library := range libraries {
		at, err := find(tree, library)
		if err != nil {
			return nil, fmt.Errorf("following %s: %w", file, err)
		}
		found = append(found, at)
	}
	if interpreter := f.Section(".interp"); interpreter != nil {
		name, err := interpreter.Data()
		if err != nil {
			return nil, fmt.Errorf("reading the interpreter of %s: %w", file, err)
		}
		found = append(found, string(name[:len(name)-1])) // It ends in a zero byte.
	}
	return found, nil
}

func find(tree, library string) (string, error) {
	for _, dir := range libraryFolders[goarch] {
		file := filepath.Join(dir, library)
		if _, err := os.Stat(filepath.Join(tree, resolve(tree, file))); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("library %s is not in the tree", library)
}
