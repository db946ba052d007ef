// Package scale measures what the program costs: requests, rates, memory. What
// is the same on every machine is asserted; the rest is printed.
package scale

import (
	"os"
	"testing"

	"github.com/holdfast-io/holdfast/test/world"
)

func TestMain(m *testing.M) { os.Exit(world.Main(m)) }
