package kube

import (
	"strings"
	"testing"
)

func TestTruncate(t *testing.T) {
	for name, tt := range map[string]struct{ message, want string }{
		"a message that fits is unchanged":         {"no room at all", "no room at all"},
		"a longer message is truncated":            {"no room at all!", "no room at ..."},
		"a character of two bytes is not split":    {"kein Platz für", "kein Platz ..."},
		"a character of three bytes is not split":  {"0123456789€€€", "0123456789..."},
		"a whole character before the limit stays": {"01234567€€€", "01234567€..."},
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
