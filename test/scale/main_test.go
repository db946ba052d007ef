// Package scale measures what the program costs: requests, rates, processor,
// memory. What is the same on every machine is asserted; the rest is printed.
package scale

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/test/world"
)

var (
	full   = flag.Bool("full", false, "measure at full size")
	update = flag.Bool("update", false, "write the tables into docs/internals/benchmarks.md")
)

func TestMain(m *testing.M) { os.Exit(world.Main(m)) }

// publishTable logs a table and, with -update, writes it to the page between the
// markers of its name. Only full measurements that passed are written.
func publishTable(t *testing.T, name, table string) {
	t.Helper()
	t.Log("\n" + table)
	if !*update || t.Failed() {
		return
	}
	if !*full {
		t.Fatal("only measurements with -full are written")
	}
	page := filepath.Join("..", "..", "docs", "internals", "benchmarks.md")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->\n"
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s lacks the markers of %s", page, name)
	}
	if err := os.WriteFile(page, []byte(head+begin+table+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
