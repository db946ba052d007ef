// Package docs checks that what the documentation names exists: links, anchors,
// files, flags and make targets. It needs no cluster.
package docs

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	top     = "../.."
	maxLine = 100
)

var (
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	inline    = regexp.MustCompile("`([^`]+)`")
	generated = regexp.MustCompile(`(?s)<!-- [^>]* -->\n\|.*?<!-- end of [^>]* -->`)
	notInID   = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	longFlag  = regexp.MustCompile("(?m)(?:^|[\\s\"(\\[`])--([a-z][a-z0-9-]*)")
	flagDecl  = regexp.MustCompile(`(?:Var|VarP|Func|Flag:|deprecate|fs\.String|RefusedFlag|flags\.\w+)[( ][^"\n]*"([a-z][a-z0-9-]*)"`)
	kubectl   = regexp.MustCompile("`(?:kubectl|ctr|kind)[^`]*`")
	notOurs   = regexp.MustCompile(`(?:kubectl| -- | # ).*`)
	program   = regexp.MustCompile(`^ *args:|^ *- --|(?:^|[ /])(?:holdfast|devcluster|local-driver|csi-[a-z]+|snapshot-controller) `)
	makeCall  = regexp.MustCompile(`(?m)(?:^|[|&;(] *)make +([a-z-]+)`)
	target    = regexp.MustCompile(`(?m)^([a-z][a-z/ -]*):`)
	testDecl  = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	testName  = regexp.MustCompile(`^Test[A-Z]\w+$`)
	goFile    = regexp.MustCompile(`^[a-z0-9_/.-]+/[a-z0-9_.-]+$`)
)

// page is one file of the documentation.
type page struct {
	path  string            // relative to the top of the repository
	prose string            // without blocks of code
	code  map[string]string // blocks of code, joined, by language
	ids   map[string]bool   // anchors of the headings
}

func TestPages(t *testing.T) {
	pages := read(t)
	linked := reachable(pages, "docs/README.md")
	targets := makeTargets(t)
	for _, p := range pages {
		t.Run(p.path, func(t *testing.T) {
			p.checkLinks(t, pages)
			p.checkLines(t)
			p.checkMake(t, targets)
			if strings.HasPrefix(p.path, "docs/") && !slices.Contains(linked, p.path) {
				t.Error("docs/README.md does not lead to this page")
			}
		})
	}
}

// The architecture follows objects through files, which are renamed now and then.
func TestFilesOfTheArchitectureExist(t *testing.T) {
	p := read(t)["docs/internals/architecture.md"]
	found := 0
	for _, name := range inline.FindAllStringSubmatch(p.prose, -1) {
		if !goFile.MatchString(name[1]) {
			continue
		}
		found++
		if _, err := os.Stat(filepath.Join(top, name[1])); err != nil {
			t.Errorf("%s does not exist", name[1])
		}
	}
	if found < 20 {
		t.Errorf("only %d files are named: was the page's form changed?", found)
	}
}

// Flags that text names, and those on command lines of this repository's programs,
// are declared in the code.
func TestFlagsExist(t *testing.T) {
	declared := declaredFlags(t)
	for _, p := range read(t) {
		commands := []string{kubectl.ReplaceAllString(p.prose, "")}
		for _, line := range strings.Split(strings.ReplaceAll(p.code["sh"], "\\\n", " ")+p.code["yaml"], "\n") {
			if program.MatchString(line) {
				commands = append(commands, notOurs.ReplaceAllString(line, ""))
			}
		}
		for _, f := range longFlag.FindAllStringSubmatch(strings.Join(commands, "\n"), -1) {
			if !declared[f[1]] {
				t.Errorf("%s: no program has a flag --%s", p.path, f[1])
			}
		}
	}
}

func (p *page) checkLinks(t *testing.T, pages map[string]*page) {
	t.Helper()
	for _, m := range link.FindAllStringSubmatch(p.prose, -1) {
		if strings.Contains(m[1], "://") {
			continue
		}
		path, id, _ := strings.Cut(m[1], "#")
		to := filepath.Join(filepath.Dir(p.path), path)
		if path == "" {
			to = p.path
		}
		if _, err := os.Stat(filepath.Join(top, to)); err != nil {
			t.Errorf("link %s leads nowhere", m[1])
		} else if other := pages[to]; id != "" && (other == nil || !other.ids[id]) {
			t.Errorf("link %s: there is no such heading", m[1])
		}
	}
}

func (p *page) checkLines(t *testing.T) {
	t.Helper()
	for _, line := range strings.Split(p.prose, "\n") {
		if n := utf8.RuneCountInString(line); n > maxLine && strings.Contains(strings.TrimLeft(line, " -"), " ") && !strings.HasPrefix(line, "|") {
			t.Errorf("a line has %d characters, want at most %d: %s", n, maxLine, line)
		}
	}
}

func (p *page) checkMake(t *testing.T, targets []string) {
	t.Helper()
	for _, span := range inline.FindAllStringSubmatch(p.prose, -1) {
		p.code["sh"] += "\n" + span[1]
	}
	for _, m := range makeCall.FindAllStringSubmatch(p.code["sh"], -1) {
		if !slices.Contains(targets, m[1]) {
			t.Errorf("make has no target %s", m[1])
		}
	}
}

// read returns all pages by path.
func read(t *testing.T) map[string]*page {
	t.Helper()
	pages := map[string]*page{}
	walk(t, ".md", func(path, text string) {
		pages[path] = parse(generated.ReplaceAllString(text, ""))
		pages[path].path = path
	})
	return pages
}

func parse(text string) *page {
	p := &page{code: map[string]string{}, ids: map[string]bool{}}
	language, inCode := "", false
	for _, line := range strings.Split(text, "\n") {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			language, inCode = strings.TrimPrefix(strings.TrimSpace(line), "```"), !inCode
		case inCode:
			p.code[language] += line + "\n"
		default:
			p.prose += line + "\n"
			if strings.HasPrefix(line, "#") {
				p.ids[id(strings.TrimLeft(line, "# "))] = true
			}
		}
	}
	return p
}

// id is the anchor that GitHub gives a heading.
func id(heading string) string {
	return strings.ReplaceAll(notInID.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// reachable lists the pages to which links lead from one, directly or not.
func reachable(pages map[string]*page, from string) []string {
	all := []string{from}
	for i := 0; i < len(all); i++ {
		for _, m := range link.FindAllStringSubmatch(pages[all[i]].prose, -1) {
			path, _, _ := strings.Cut(m[1], "#")
			to := filepath.Join(filepath.Dir(all[i]), path)
			if pages[to] != nil && !slices.Contains(all, to) {
				all = append(all, to)
			}
		}
	}
	return all
}

// makeTargets lists what make can make.
func makeTargets(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range target.FindAllStringSubmatch(string(text), -1) {
		all = append(all, strings.Fields(m[1])...)
	}
	return all
}

// declaredFlags are the flags that the code declares by name, those of libraries,
// and those that csi-attacher ignores.
func declaredFlags(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{"v": true, "help": true, "version": true, "resync": true, "max-grpc-log-length": true}
	walk(t, ".go", func(_, text string) {
		for _, m := range flagDecl.FindAllStringSubmatch(text, -1) {
			all[m[1]] = true
		}
	})
	return all
}

// walk calls do for each file with the extension.
func walk(t *testing.T, extension string, do func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == ".git" || d.Name() == "bin") {
			return cmp.Or(err, fs.SkipDir)
		}
		if filepath.Ext(file) != extension {
			return nil
		}
		path, relErr := filepath.Rel(top, file)
		text, readErr := os.ReadFile(file)
		do(path, string(text))
		return errors.Join(relErr, readErr)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Tests that text names exist.
func TestNamedTestsExist(t *testing.T) {
	declared := map[string]bool{}
	walk(t, ".go", func(_, text string) {
		for _, name := range testDecl.FindAllStringSubmatch(text, -1) {
			declared[name[1]] = true
		}
	})
	found := 0
	for _, p := range read(t) {
		for _, name := range inline.FindAllStringSubmatch(p.prose, -1) {
			if !testName.MatchString(name[1]) {
				continue
			}
			found++
			if !declared[name[1]] {
				t.Errorf("%s: there is no test %s", p.path, name[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d tests are named: was the form of the pages changed?", found)
	}
}
