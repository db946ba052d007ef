package scale

import (
	"fmt"
	"strings"
)

// A tableRow is a figure of ours beside those of the programs whose place this one
// takes, with limits raised to 1000/2000 requests a second and with their
// default limits: measured at their newest versions, on the same kind of
// machine, cluster and driver.
type tableRow struct{ name, ours, raised, defaults string }

// comparisonTable is a table in Markdown of what was measured with that many objects.
func comparisonTable(objects string, lines ...tableRow) string {
	var b strings.Builder
	write := func(l tableRow) { fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", l.name, l.ours, l.raised, l.defaults) }
	write(tableRow{objects, "holdfast", "peers, limits raised", "peers, default limits"})
	b.WriteString("|---|---|---|---|\n")
	for _, l := range lines {
		write(l)
	}
	return b.String()
}

func figure(format string, x float64) string { return fmt.Sprintf(format, x) }
