package crash

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// page is where the table is kept, between two marks.
var page = filepath.Join("..", "..", "docs", "crash.md")

const beginMark, endMark = "<!-- the sweep's table -->\n", "<!-- end of the table -->\n"

// table is what a sweep is judged by.
type table struct{ rows []*row }

// row counts one scenario.
type row struct {
	mu     sync.Mutex
	name   string
	order  bool           // the points come in the same order each time
	points map[point]bool // at which something was struck
	runs   int            // that count
	missed int            // runs that did not come to their point
	leaks  int
	stuck  int
}

func (t *table) row(sc *scenario) *row {
	r := &row{name: sc.name, order: sc.leaders < 2, points: map[point]bool{}}
	t.rows = append(t.rows, r)
	return r
}

// add counts a run. One that did not come to its point and went well has shown
// nothing.
func (r *row) add(with strike, found result, came bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !came && found.ok() {
		r.missed++
		return
	}
	if p := cmp.Or(with.at, with.turn); p != "" {
		r.points[p] = true
	}
	r.runs++
	r.leaks += len(found.leaks)
	r.stuck += len(found.stuck)
}

// String is the table in Markdown.
func (t *table) String() string {
	var b strings.Builder
	b.WriteString("| scenario | points | runs | missed | leaks | stuck |\n|---|---|---|---|---|---|\n")
	sum := row{name: "**all**"}
	points := 0
	for _, r := range t.rows {
		r.mu.Lock()
		r.print(&b, len(r.points))
		points += len(r.points)
		sum.runs, sum.missed, sum.leaks, sum.stuck = sum.runs+r.runs, sum.missed+r.missed, sum.leaks+r.leaks, sum.stuck+r.stuck
		r.mu.Unlock()
	}
	sum.print(&b, points)
	return b.String()
}

func (r *row) print(b *strings.Builder, points int) {
	fmt.Fprintf(b, "| %s | %d | %d | %d | %d | %d |\n", r.name, points, r.runs, r.missed, r.leaks, r.stuck)
}

// check fails a sweep most of whose runs have shown nothing, as a whole and in each
// scenario but those with two leaders: which of them comes first is another one
// each time.
func (t *table) check(test *testing.T) {
	test.Helper()
	runs, missed := 0, 0
	for _, r := range t.rows {
		runs, missed = runs+r.runs, missed+r.missed
		if len(r.points) == 0 && r.missed > 0 {
			test.Errorf("no run of scenario %q has come to its point", r.name)
		}
		if r.order && r.missed > r.runs {
			test.Errorf("%d runs of scenario %q did not come to their point and only %d did", r.missed, r.name, r.runs)
		}
	}
	if missed > runs {
		test.Errorf("%d runs did not come to their point and only %d did", missed, runs)
	}
}

// write puts the table into the page. A sweep of a part does not go there.
func (t *table) write(test *testing.T) {
	test.Helper()
	if test.Failed() || !*full {
		test.Fatal("a sweep that failed, or was not full, is not written down")
	}
	for _, r := range t.rows {
		if r.runs == 0 {
			test.Fatalf("scenario %q was not swept, so the table is not written", r.name)
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		test.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), beginMark)
	_, tail, ended := strings.Cut(rest, endMark)
	if !ok || !ended {
		test.Fatalf("%s lacks the marks of the table", page)
	}
	if err := os.WriteFile(page, []byte(head+beginMark+t.String()+endMark+tail), 0o644); err != nil {
		test.Fatal(err)
	}
}
