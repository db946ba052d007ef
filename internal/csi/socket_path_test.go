package csi

import "testing"

func TestSocketPath(t *testing.T) {
	tests := map[string]struct {
		address, want string
		good          bool
	}{
		"a path is a path":                             {"/run/csi/socket", "/run/csi/socket", true},
		"a relative path is a path":                    {"csi.sock", "csi.sock", true},
		"a URL names an absolute path":                 {"unix:///run/csi/socket", "/run/csi/socket", true},
		"a URL can name a relative path":               {"unix://csi.sock", "csi.sock", true},
		"special characters in a path have no meaning": {"/run/a b%2F?c", "/run/a b%2F?c", true},
		"no address is an error":                       {"", "", false},
		"a URL without a path is an error":             {"unix://", "", false},
		"another scheme is an error":                   {"tcp://127.0.0.1:9000", "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := socketPath(tt.address); got != tt.want || (err == nil) != tt.good {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
