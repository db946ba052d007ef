package crash

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// page is the document that has the table, between two markers.
var page = filepath.Join("..", "..", "docs", "internals", "crash.md")

const beginMark, endMark = "<!-- the sweep's table -->\n", "<!-- end of the table -->\n"

// table is the result of a sweep.
type table struct{ rows []*row }

// row counts the runs of one scenario.
type row struct {
	mu            sync.Mutex
	name          string
	commit        string         // of the code that was swept
	deterministic bool           // the points have the same order each time
	points        map[point]bool // at which a fault was injected
	planned       int            // runs of the scenario
	runs          int            // that reached their point
	missed        int            // runs that never reached their point
	leaks         int
	stuck         int
	faults        map[string]*tally // by kind
}

// tally counts the runs with one fault.
type tally struct{ runs, failed int }

func (t *table) row(sc *scenario) *row {
	r := &row{name: sc.name, deterministic: sc.leaders < 2, points: map[point]bool{}, faults: map[string]*tally{}}
	t.rows = append(t.rows, r)
	return r
}

// add counts a run. A run that passed without reaching its point has tested nothing.
func (r *row) add(with injection, found result, came bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !came && found.ok() {
		r.missed++
		return
	}
	if p := cmp.Or(with.at, with.disruption); p != "" {
		r.points[p] = true
	}
	r.runs++
	r.leaks += len(found.leaks)
	r.stuck += len(found.stuck)
	if kind := with.kind(); kind != "" {
		if r.faults[kind] == nil {
			r.faults[kind] = &tally{}
		}
		r.faults[kind].runs++
		if !found.ok() {
			r.faults[kind].failed++
		}
	}
}

// byFault is a table of the faults, in Markdown.
func (t *table) byFault() string {
	all := map[string]*tally{}
	for _, r := range t.rows {
		r.mu.Lock()
		for kind, n := range r.faults {
			if all[kind] == nil {
				all[kind] = &tally{}
			}
			all[kind].runs += n.runs
			all[kind].failed += n.failed
		}
		r.mu.Unlock()
	}
	var b strings.Builder
	b.WriteString("| fault | runs | failed |\n|---|---|---|\n")
	for _, kind := range faultKinds() {
		if n := all[kind]; n != nil {
			fmt.Fprintf(&b, "| %s | %d | %d |\n", kind, n.runs, n.failed)
		}
	}
	return b.String()
}

// String returns the table in Markdown.
func (t *table) String() string {
	var b strings.Builder
	b.WriteString("| scenario | points | runs | missed | leaks | stuck | commit |\n|---|---|---|---|---|---|---|\n")
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
	fmt.Fprintf(b, "| %s | %d | %d | %d | %d | %d | %s |\n", r.name, points, r.runs, r.missed, r.leaks, r.stuck, r.commit)
}

// check fails a sweep if most runs missed their points, in all or in one scenario.
// Scenarios with two leaders are exempt: the order of their requests differs each
// time.
func (t *table) check(test *testing.T) {
	test.Helper()
	runs, missed := 0, 0
	for _, r := range t.rows {
		runs, missed = runs+r.runs, missed+r.missed
		if len(r.points) == 0 && r.missed > 0 {
			test.Errorf("no run of scenario %q has reached its point", r.name)
		}
		if r.deterministic && r.missed > r.runs {
			test.Errorf("%d runs of scenario %q missed their points and only %d reached them", r.missed, r.name, r.runs)
		}
	}
	if missed > runs {
		test.Errorf("%d runs missed their points and only %d reached them", missed, runs)
	}
}

// plan adds runs that are to be counted.
func (r *row) plan(runs int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.planned += runs
}

// complete returns a table with all scenarios. Scenarios that were not swept keep the
// page's rows; those that never were have none.
func (t *table) complete(page string) (*table, error) {
	all := &table{}
	for _, sc := range scenarios {
		i := slices.IndexFunc(t.rows, func(r *row) bool { return r.name == sc.name })
		if i < 0 {
			if !strings.Contains(page, "\n| "+sc.name+" |") {
				continue
			}
			r := all.row(sc)
			if err := r.readFrom(page); err != nil {
				return nil, fmt.Errorf("reading the row of scenario %q, which was not swept: %w", r.name, err)
			}
			continue
		}
		r := t.rows[i]
		if r.runs+r.missed != r.planned {
			return nil, fmt.Errorf("only a part of scenario %q was swept: its row cannot be written", r.name)
		}
		all.rows = append(all.rows, r)
	}
	return all, nil
}

// readFrom reads a row from the page.
func (r *row) readFrom(page string) error {
	_, line, _ := strings.Cut(page, "\n| "+r.name+" |")
	points := 0
	if _, err := fmt.Sscanf(line, "%d | %d | %d | %d | %d | %s |", &points, &r.runs, &r.missed, &r.leaks, &r.stuck, &r.commit); err != nil {
		return err
	}
	for i := range points {
		r.points[point(fmt.Sprint(i))] = true
	}
	return nil
}

// code are the directories and files whose last commit a row names: what the sweep runs.
var code = []string{"api", "cmd", "internal", "test/crash", "test/proxy", "test/world", "go.mod"}

// codeCommit returns the last commit that changed the code. What is not committed belongs to
// no commit.
func codeCommit(test *testing.T) string {
	test.Helper()
	if changed := git(test, append([]string{"status", "--porcelain", "--"}, code...)...); changed != "" {
		test.Fatalf("commit these first, so that the table can name the commit:\n%s", changed)
	}
	return git(test, append([]string{"log", "-1", "--format=%h", "--"}, code...)...)
}

func git(test *testing.T, args ...string) string {
	test.Helper()
	out, err := exec.CommandContext(test.Context(), "git", append([]string{"-C", filepath.Join("..", "..")}, args...)...).Output()
	if err != nil {
		test.Fatalf("git %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// sweptAt returns the commit in the scenario's row on the page, "" if it has none.
func sweptAt(test *testing.T, sc *scenario) string {
	test.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		test.Fatal(err)
	}
	r := (&table{}).row(sc)
	if err := r.readFrom(string(text)); err != nil {
		return ""
	}
	return r.commit
}

// write writes the table to the page. Scenarios that were not swept keep their rows.
func (t *table) write(test *testing.T) {
	test.Helper()
	if !*full {
		test.Fatal("the table of a sweep that was not full is not written")
	}
	text, err := os.ReadFile(page)
	if err != nil {
		test.Fatal(err)
	}
	all, err := t.complete(string(text))
	if err != nil {
		test.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), beginMark)
	_, tail, ended := strings.Cut(rest, endMark)
	if !ok || !ended {
		test.Fatalf("%s lacks the markers of the table", page)
	}
	if err := os.WriteFile(page, []byte(head+beginMark+all.String()+endMark+tail), 0o644); err != nil {
		test.Fatal(err)
	}
}

// A sweep of some scenarios keeps the rows of the others.
func TestOtherRowsStay(t *testing.T) {
	t.Parallel()
	before := &table{}
	for i, sc := range scenarios {
		r := before.row(sc)
		r.runs, r.missed, r.commit = i+1, i, "1234567"
		r.points["POST leases 1"] = true
	}
	swept := &table{}
	r := swept.row(scenarios[1])
	r.plan(7)
	r.runs, r.commit = 7, "89abcde"
	after, err := swept.complete("text\n" + before.String())
	if err != nil {
		t.Fatal(err)
	}
	before.rows[1] = r
	if after.String() != before.String() {
		t.Errorf("the table is\n%s, want\n%s", after, before)
	}
	r.plan(1)
	if _, err := swept.complete("text\n" + before.String()); err == nil {
		t.Error("a scenario with a missing run was written")
	}
}

// Every scenario was swept in full once, and its row says at which commit.
func TestEveryScenarioHasARow(t *testing.T) {
	t.Parallel()
	for _, sc := range scenarios {
		if sweptAt(t, sc) == "" {
			t.Errorf("docs/internals/crash.md has no row for the scenario %q: sweep it with -full -update", sc.name)
		}
	}
}
