package cluster

import (
	"strings"
	"testing"
)

func TestNodesNeedControllers(t *testing.T) {
	t.Setenv("DEVCLUSTER_HOME", t.TempDir())
	_, err := Up(t.Context(), Options{Name: "x", Nodes: 1, APIOnly: true})
	if err == nil || !strings.Contains(err.Error(), "--api-only") {
		t.Errorf("got %v", err)
	}
}
