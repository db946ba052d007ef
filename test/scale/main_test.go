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

// publishTable shows a table and, when asked, puts it into the page between the
// marks of its name. Only full measurements that went well go there.
func publishTable(t *testing.T, name, table string) {
	t.Helper()
	t.Log("\n" + table)
	if !*update || t.Failed() {
		return
	}
	if !*full {
		t.Fatal("only what is measured with -full is written down")
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
		t.Fatalf("%s lacks the marks of %s", page, name)
	}
	if err := os.WriteFile(page, []byte(head+begin+table+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
