// Package e2e tests the programs as users run them, against a real Kubernetes.
package e2e

import (
	"os"
	"testing"

	"github.com/holdfast-io/holdfast/test/world"
)

func TestMain(m *testing.M) { os.Exit(world.Main(m)) }
