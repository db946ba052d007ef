package scale

import "strings"

// columns is a table with one column for each result.
type columns[T any] struct {
	strings.Builder
	of []T
}

func newColumns[T any](of []T) *columns[T] { return &columns[T]{of: of} }

func (c *columns[T]) row(name string, value func(T) string) {
	c.WriteString("| " + name + " |")
	for _, x := range c.of {
		c.WriteString(" " + value(x) + " |")
	}
	c.WriteString("\n")
}

// line ends the table's head.
func (c *columns[T]) line() { c.WriteString("|" + strings.Repeat("---|", len(c.of)+1) + "\n") }
