package scale

import (
	"fmt"
	"strings"
)

// A tableRow has a figure of this program beside those of the programs that it
// replaces, with limits raised to 1000/2000 requests a second and with default limits.
// Those were measured with their newest versions, on the same kind of machine, cluster
// and driver.
type tableRow struct{ name, ours, raised, defaults string }

// comparisonTable returns a table in Markdown.
func comparisonTable(objects string, lines ...tableRow) string {
	var b strings.Builder
	write := func(l tableRow) { fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", l.name, l.ours, l.raised, l.defaults) }
	write(tableRow{objects, "holdfast", "upstream, limits raised", "upstream, default limits"})
	b.WriteString("|---|---|---|---|\n")
	for _, l := range lines {
		write(l)
	}
	return b.String()
}

func figure(format string, x float64) string { return fmt.Sprintf(format, x) }
