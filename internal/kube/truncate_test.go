package kube

import (
	"strings"
	"testing"
)

func TestCut(t *testing.T) {
	for name, tt := range map[string]struct{ message, want string }{
		"what fits stays":               {"no room at all", "no room at all"},
		"what is longer is cut":         {"no room at all!", "no room at ..."},
		"no character is cut in two":    {"kein Platz für", "kein Platz ..."},
		"nor is one of several bytes":   {"0123456789€€€", "0123456789..."},
		"what is cut between is enough": {"01234567€€€", "01234567€..."},
	} {
		got := Truncate(tt.message, 14)
		if got != tt.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := Truncate(strings.Repeat("x", 3000), 1024); len(got) != 1024 {
		t.Errorf("%d bytes", len(got))
	}
}
