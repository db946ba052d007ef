package checkpoints

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// page is the document that has the table, between two markers.
var page = filepath.Join("..", "..", "..", "docs", "internals", "crash.md")

const beginMark, endMark = "<!-- the sweep's table of checkpoints -->\n", "<!-- end of the table of checkpoints -->\n"

// table is the result of a sweep.
type table struct {
	mu   sync.Mutex
	rows []*row
}

// row counts the runs of one scenario. One run at a time adds to it.
type row struct {
	name                      string
	deterministic             bool           // the points have the same order each time
	points                    map[point]bool // at which a fault was injected
	runs                      int            // that reached their point
	missed                    int            // runs that never reached their point
	leaks, stuck, wrong       int
	faultRuns, faultsDetected map[string]int // by fault
}

func (t *table) row(sc *scenario) *row {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &row{name: sc.name, deterministic: sc.operators < 2, points: map[point]bool{}, faultRuns: map[string]int{}, faultsDetected: map[string]int{}}
	t.rows = append(t.rows, r)
	return r
}

// add counts a run. A run that passed without reaching its point has tested nothing.
func (r *row) add(with injection, found *result, came bool) {
	if !came && found.ok() {
		r.missed++
		return
	}
	if p := cmp.Or(with.at, with.disruption); p != "" {
		r.points[p] = true
	}
	r.runs++
	r.leaks, r.stuck, r.wrong = r.leaks+len(found.leaks), r.stuck+len(found.stuck), r.wrong+len(found.wrong)
	if name := with.fault.name; name != "" {
		r.faultRuns[name]++
		if !found.ok() {
			r.faultsDetected[name]++
		}
	}
}

// sorted returns the rows in the order of the scenarios.
func (t *table) sorted() []*row {
	var all []*row
	for _, sc := range scenarios {
		if i := slices.IndexFunc(t.rows, func(r *row) bool { return r.name == sc.name }); i >= 0 {
			all = append(all, t.rows[i])
		}
	}
	return all
}

// byFault is a table of the faults, in Markdown.
func (t *table) byFault() string {
	var b strings.Builder
	b.WriteString("| fault | runs | failed |\n|---|---|---|\n")
	for _, name := range faultNames() {
		ran, failed := 0, 0
		for _, r := range t.rows {
			ran, failed = ran+r.faultRuns[name], failed+r.faultsDetected[name]
		}
		if ran > 0 {
			fmt.Fprintf(&b, "| %s | %d | %d |\n", name, ran, failed)
		}
	}
	return b.String()
}

// String returns the table in Markdown.
func (t *table) String() string {
	var b strings.Builder
	b.WriteString("| scenario | points | runs | missed | leaks | stuck |\n|---|---|---|---|---|---|\n")
	sum, points := row{name: "**all**"}, 0
	for _, r := range t.sorted() {
		r.print(&b, len(r.points))
		points += len(r.points)
		sum.runs, sum.missed, sum.leaks, sum.stuck = sum.runs+r.runs, sum.missed+r.missed, sum.leaks+r.leaks, sum.stuck+r.stuck
	}
	sum.print(&b, points)
	return b.String()
}

func (r *row) print(b *strings.Builder, points int) {
	fmt.Fprintf(b, "| %s | %d | %d | %d | %d | %d |\n", r.name, points, r.runs, r.missed, r.leaks, r.stuck)
}

// check fails a sweep if most runs of a scenario missed their points. With two operators the
// order differs each time.
func (t *table) check(test *testing.T) {
	test.Helper()
	for _, r := range t.rows {
		if r.deterministic && r.missed > r.runs {
			test.Errorf("%d runs of scenario %q missed their points and only %d reached them", r.missed, r.name, r.runs)
		}
	}
}

// write writes the table to the page.
func (t *table) write(test *testing.T) {
	test.Helper()
	if test.Failed() || !*full || len(t.rows) != len(scenarios) {
		test.Fatal("the table of a sweep that failed, or was not full, is not written")
	}
	text, err := os.ReadFile(page)
	if err != nil {
		test.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), beginMark)
	_, tail, ended := strings.Cut(rest, endMark)
	if !ok || !ended {
		test.Fatalf("%s lacks the markers of the table", page)
	}
	if err := os.WriteFile(page, []byte(head+beginMark+t.String()+endMark+tail), 0o644); err != nil {
		test.Fatal(err)
	}
}
