package scale

import (
	"fmt"
	"strings"
)

// A line is a figure of ours beside those of the programs whose place this one
// takes, with limits raised to 1000/2000 requests a second and with their
// default limits: measured at their newest versions, on the same kind of
// machine, cluster and driver.
type line struct{ what, ours, raised, defaults string }

// sideBySide is a table in Markdown of what was measured with that many objects.
func sideBySide(objects string, lines ...line) string {
	var b strings.Builder
	write := func(l line) { fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", l.what, l.ours, l.raised, l.defaults) }
	write(line{objects, "holdfast", "peers, limits raised", "peers, default limits"})
	b.WriteString("|---|---|---|---|\n")
	for _, l := range lines {
		write(l)
	}
	return b.String()
}

func figure(format string, x float64) string { return fmt.Sprintf(format, x) }
