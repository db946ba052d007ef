package csi

import (
	"strings"
	"testing"
)

func TestSafeName(t *testing.T) {
	tests := map[string]struct{ driver, want string }{
		"dots become dashes":                  {"ebs.csi.aws.com", "ebs-csi-aws-com"},
		"dashes, digits and capitals stay":    {"My-Driver2", "My-Driver2"},
		"a trailing dash gets a letter":       {"driver-", "driver-X"},
		"a trailing dot is a trailing dash":   {"driver.", "driver-X"},
		"a character of several bytes is one": {"drivér.io", "driv-r-io"},
		"an empty name stays empty":           {"", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := SafeName(tt.driver); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCheckName(t *testing.T) {
	tests := map[string]struct {
		name string
		good bool
	}{
		"a domain name is valid":        {"local.holdfast.io", true},
		"one letter is valid":           {"a", true},
		"63 characters are valid":       {strings.Repeat("a", 63), true},
		"an empty name is invalid":      {"", false},
		"64 characters are too many":    {strings.Repeat("a", 64), false},
		"a slash cannot be in a name":   {"holdfast.io/local", false},
		"a name cannot end with a dash": {"local-", false},
		"a name cannot begin with one":  {"-local", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := checkName(tt.name); (err == nil) != tt.good {
				t.Errorf("got %v", err)
			}
		})
	}
}
