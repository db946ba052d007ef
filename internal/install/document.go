package install

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

const (
	// mark ends each line of ours.
	mark = "# set by holdfast"
	// replaced begins each line that one of ours stands for.
	replaced = "# replaced by holdfast: "
	// created is the first line of a file that is ours.
	created = "# This file was created by holdfast node install. " + mark
)

// A document is a TOML file that is edited line by line.
type document struct {
	text    string
	tree    table
	entries []entry
}

type table = map[string]any

// An entry is the header of a table, or a key with its value.
type entry struct {
	path        []string // from the root of the document
	table       []string // the path in the header above a key
	header      bool
	first, last int // lines, from 0
}

// parse reads a TOML file.
func parse(text string) (*document, error) {
	d := &document{text: text, tree: table{}}
	if err := toml.Unmarshal([]byte(text), &d.tree); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			row, column := at.Position()
			return nil, fmt.Errorf("line %d, column %d: %w", row, column, err)
		}
		return nil, err
	}
	data := []byte(text)
	lineAt := func(offset uint32) int { return bytes.Count(data[:offset], []byte("\n")) }
	var parser unstable.Parser
	parser.Reset(data)
	var current []string
	for parser.NextExpression() {
		expression := parser.Expression()
		switch expression.Kind {
		case unstable.Table, unstable.ArrayTable:
			path, at := keys(expression.Key())
			if expression.Kind == unstable.ArrayTable {
				path = append(path, "[]") // Elements of arrays are never edited.
			}
			current = path
			d.entries = append(d.entries, entry{path: path, header: true, first: lineAt(at), last: lineAt(at)})
		case unstable.KeyValue:
			path, _ := keys(expression.Key())
			raw := expression.Raw
			d.entries = append(d.entries, entry{
				path: slices.Concat(current, path), table: current,
				first: lineAt(raw.Offset), last: lineAt(raw.Offset + raw.Length),
			})
		default:
		}
	}
	return d, parser.Error()
}

// keys returns a dotted key, and where its first part is.
func keys(all unstable.Iterator) (path []string, offset uint32) {
	for all.Next() {
		if path == nil {
			offset = all.Node().Raw.Offset
		}
		path = append(path, string(all.Node().Data))
	}
	return path, offset
}

// A setting gives a key a value.
type setting struct {
	path  []string
	value any // string, bool, int64, float64, or []any of these
}

// set returns a document with the settings. Everything else is as it was: both texts are
// parsed and compared.
func (d *document) set(settings ...setting) (*document, error) {
	result, err := d.setNew(settings)
	if err == nil && strip(result.text) != d.text {
		return nil, fmt.Errorf("lines that end with %q or begin with %q are in the way", mark, replaced)
	}
	return result, err
}

// setNew is set for a document that may have lines of ours.
func (d *document) setNew(settings []setting) (*document, error) {
	want, result := clone(d.tree), d
	for _, s := range settings {
		text, err := result.setOne(s)
		if err != nil {
			return nil, err
		}
		if result, err = parse(text); err != nil {
			return nil, fmt.Errorf("setting %s makes the file invalid: %w", dotted(s.path), err)
		}
		put(want, s.path, s.value)
	}
	if !reflect.DeepEqual(result.tree, want) {
		return nil, errors.New("setting the keys of the handler would change other settings")
	}
	return result, nil
}

func (d *document) setOne(s setting) (string, error) {
	value, err := literal(s.value)
	if err != nil {
		return "", fmt.Errorf("%s: %w", dotted(s.path), err)
	}
	parent, lines := s.path[:len(s.path)-1], strings.SplitAfter(d.text, "\n")
	line := func(key []string) string { return dotted(key) + " = " + value + " " + mark + "\n" }
	place, err := d.find(s.path)
	if err != nil {
		return "", err
	}
	switch e := place.entry; {
	case e == nil && len(parent) == 0:
		return line(s.path) + d.text, nil // Keys of no table come first.
	case e == nil:
		return insert(lines, len(lines)-1, "["+dotted(parent)+"] "+mark+"\n", "  "+line(s.path[len(parent):])), nil
	case place.same:
		return replace(lines, e, line(s.path[len(e.table):])), nil
	case !e.header:
		return insert(lines, e.last, indent(lines[e.first])+line(s.path[len(e.table):])), nil
	default:
		return insert(lines, lastOfOurs(lines, e.last), indent(lines[e.first])+"  "+line(s.path[len(parent):])), nil
	}
}

// lastOfOurs returns the last one of our keys below a header, or the header if there is none.
func lastOfOurs(lines []string, header int) int {
	last := header
	for last+1 < len(lines) && isOurs(lines[last+1]) && !strings.HasPrefix(lines[last+1], "[") {
		last++
	}
	return last
}

// A place is where a key is set.
type place struct {
	// entry is the key itself, the header of its table, or a dotted key of its table, below
	// which it can be written. It is nil if there is no such table.
	entry *entry
	same  bool // it is the key itself
}

func (d *document) find(path []string) (place, error) {
	parent := path[:len(path)-1]
	var found place
	for i := range d.entries {
		e := &d.entries[i]
		switch {
		case e.header:
			if slices.Equal(e.path, parent) {
				found.entry = e
			}
		case slices.Equal(e.path, path):
			return place{e, true}, nil
		case hasPrefix(parent, e.path):
			return place{}, fmt.Errorf("%s is an inline table, which cannot be edited line by line: write it as [%s]", dotted(e.path), dotted(e.path))
		case hasPrefix(e.path, parent) && len(e.table) < len(parent) && found.entry == nil:
			found.entry = e
		}
	}
	return found, nil
}

// replace makes comments of a key's lines, and puts another line below them.
func replace(lines []string, e *entry, line string) string {
	line = indent(lines[e.first]) + line
	for i := e.first; i <= e.last; i++ {
		lines[i] = replaced + lines[i]
	}
	return insert(lines, e.last, line)
}

// insert puts lines below another one. If that is the last one and has no line end, the new
// last line has none either, which tells strip so.
func insert(lines []string, below int, added ...string) string {
	if last := len(lines) - 1; below == last && lines[last] != "" {
		lines[last] += "\n"
		added[len(added)-1] = strings.TrimSuffix(added[len(added)-1], "\n")
	}
	return strings.Join(slices.Insert(lines, below+min(1, len(lines[below])), added...), "")
}

// strip returns a text without our changes.
func strip(text string) string {
	var out strings.Builder
	for line := range strings.SplitAfterSeq(text, "\n") {
		if !isOurs(line) {
			out.WriteString(strings.TrimPrefix(line, replaced))
		}
	}
	if lines := strings.SplitAfter(text, "\n"); isOurs(lines[len(lines)-1]) {
		return strings.TrimSuffix(out.String(), "\n")
	}
	return out.String()
}

func isOurs(line string) bool { return strings.HasSuffix(strings.TrimRight(line, "\r\n"), mark) }

func indent(line string) string { return line[:len(line)-len(strings.TrimLeft(line, " \t"))] }

func hasPrefix(path, prefix []string) bool {
	return len(path) >= len(prefix) && slices.Equal(path[:len(prefix)], prefix)
}
