package checkpoint

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/test/s3server"
)

var (
	sizes  = flag.String("sizes", "64,512,2048", "MiB of memory of the programs that the benchmarks checkpoint and restore")
	update = flag.Bool("update", false, "have the benchmarks write their tables into docs/internals/checkpoint-benchmarks.md")
)

// A way is one of those that are compared, with what was measured in each round.
type way struct {
	name, store string
	rounds      int // in how many of the rounds it is taken; 0 for all
	do          func() saved

	gaps   []time.Duration // for which the program was frozen, by its own clock
	wholes []time.Duration // 0 if it makes no archive
	last   saved
}

// BenchmarkCheckpoint compares the ways to checkpoint a program of each size, in turns. One
// iteration is one round of all of them.
func BenchmarkCheckpoint(b *testing.B) {
	n := newKubeletNode(b)
	server := s3server.Start(b, s3server.Options{})
	if err := os.Mkdir(filepath.Join(server.Dir, bucket), 0o700); err != nil {
		b.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| memory | step | store | frozen | of the kubelet's | of CRIU's least | whole | of the kubelet's | archive | peak RSS |\n" +
		"|---|---|---|---|---|---|---|---|---|---|\n")
	var programs []*program
	for size := range strings.SplitSeq(*sizes, ",") {
		programs = append(programs, newProgram(b, n, size, server.URL()))
	}
	round := 0
	for b.Loop() {
		for _, p := range programs {
			p.round(b, round)
		}
		round++
	}
	for _, p := range programs {
		p.report(&table)
	}
	b.ReportMetric(0, "ns/op")
	fmt.Printf("%d rounds\n%s", round, &table) // The log of a benchmark is truncated.
	if *update && !b.Failed() {
		publish(b, "make bench-checkpoint", table.String())
	}
}

// A program is the one that is checkpointed.
type program struct {
	*kubeletNode
	mib       string
	container runtime.Container
	ways      []*way
}

// newProgram starts a program with that much memory, half of which compresses well.
func newProgram(b *testing.B, n *kubeletNode, mib, s3 string) *program {
	b.Helper()
	p := &program{kubeletNode: n, mib: mib, container: n.runWorkload(b, "program-"+mib, "memory=idle:"+mib)}
	p.ways = []*way{
		{name: "the kubelet's call alone", do: func() saved {
			whole, size := n.callKubelet(b, p.container)
			return saved{Whole: whole, Stored: size}
		}},
		{name: "CRIU without memory", do: func() saved {
			n.floor(b, p.container)
			return saved{}
		}},
	}
	dir := b.TempDir()
	for _, step := range []runtime.Step{runtime.FreezeCopy, runtime.Tmpfs, runtime.Disk} {
		s := saving{task: task{Config: n.config, ID: "bench", Containers: []runtime.Container{p.container}, Options: runtime.Options{Fast: step != runtime.Disk}}, Dir: dir}
		s.Config.WithoutFreezeCopy = step == runtime.Tmpfs
		toS3 := s
		toS3.S3 = s3
		p.ways = append(p.ways,
			&way{name: string(step), store: "local", do: func() saved { return p.save(b, &s, step) }},
			// The store does not change for how long the program is frozen.
			&way{name: string(step), store: "s3", rounds: 1, do: func() saved { return p.save(b, &toS3, step) }})
	}
	return p
}

func (p *program) save(b *testing.B, s *saving, step runtime.Step) saved {
	b.Helper()
	measured := s.save(b)
	if measured.Step != step {
		b.Errorf("%s MiB: the step was %s (%s), not %s", p.mib, measured.Step, measured.Reason, step)
	}
	return *measured
}

// round takes all ways once.
func (p *program) round(b *testing.B, round int) {
	b.Helper()
	for _, w := range p.ways {
		if w.rounds > 0 && round >= w.rounds {
			continue
		}
		unix.Sync() // What one way has written must not be written while the next one works.
		before := len(p.gaps(b))
		w.last = w.do()
		w.wholes = append(w.wholes, w.last.Whole)
		after := len(p.gaps(b))
		var gaps []time.Duration
		waitFor(b, "the program has looked at its clock", func(context.Context) (bool, error) {
			gaps = p.gaps(b)
			return len(gaps) > after+1, nil
		})
		gaps = gaps[before:]
		w.gaps = append(w.gaps, slices.Max(gaps))
		fmt.Printf("round %d, %s MiB, %s %s: frozen for %s (the engine says %s) of %s\n", round+1, p.mib, w.name, w.store,
			slices.Max(gaps), w.last.Frozen.Round(time.Millisecond), w.last.Whole.Round(time.Millisecond))
	}
}

// gaps returns the longest time between two looks at its clock that the program has printed
// in each line.
func (p *program) gaps(b *testing.B) []time.Duration {
	b.Helper()
	log, err := p.Client.CoreV1().Pods(p.Namespace).GetLogs(p.container.Pod, &corev1.PodLogOptions{Container: p.container.Name}).DoRaw(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	var gaps []time.Duration
	for line := range strings.Lines(string(log)) {
		fields := strings.Fields(line)
		if len(fields) != 4 {
			b.Fatalf("the program says: %s", line)
		}
		ms, err := strconv.Atoi(fields[3])
		if err != nil {
			b.Fatal(err)
		}
		gaps = append(gaps, time.Duration(ms)*time.Millisecond)
	}
	return gaps
}

// report adds the medians of all ways to a table.
func (p *program) report(table *strings.Builder) {
	kubelet, least := p.ways[0], p.ways[1]
	for _, w := range p.ways {
		frozen, whole := median(w.gaps), median(w.wholes)
		row := []string{p.mib + " MiB", w.name, w.store, seconds(frozen),
			"1/" + ratio(median(kubelet.gaps), frozen), ratio(frozen, median(least.gaps)), "", "", "", ""}
		if whole > 0 {
			row[6], row[7], row[8] = seconds(whole), ratio(whole, median(kubelet.wholes)), mebibytes(w.last.Stored)
		}
		if w.last.RSS > 0 {
			row[9] = mebibytes(w.last.RSS)
		}
		fmt.Fprintf(table, "| %s |\n", strings.Join(row, " | "))
	}
}

func median(of []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func mebibytes(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

func ratio(a, b time.Duration) string { return fmt.Sprintf("%.2f", a.Seconds()/b.Seconds()) }

// publish writes a table into its page, between the marks of its name.
func publish(b *testing.B, name, table string) {
	b.Helper()
	page := filepath.Join("..", "..", "docs", "internals", "checkpoint-benchmarks.md")
	text, err := os.ReadFile(page)
	if err != nil {
		b.Fatal(err)
	}
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->\n"
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, ended := strings.Cut(rest, end)
	if !ok || !ended {
		b.Fatalf("%s lacks the markers of its table", page)
	}
	if err := os.WriteFile(page, []byte(head+begin+table+end+tail), 0o644); err != nil {
		b.Fatal(err)
	}
}
