package store

import (
	"strings"
	"testing"
)

func TestValidateKey(t *testing.T) {
	tests := map[string]struct{ key, says string }{
		"an element is a key":                   {"a", ""},
		"elements have slashes between them":    {"checkpoints/6f1c-9.v1_x/main.hf", ""},
		"an empty key is refused":               {"", "empty"},
		"an absolute path is refused":           {"/a", "leading"},
		"a trailing slash is refused":           {"a/", "trailing"},
		"a doubled slash is refused":            {"a//b", "doubled"},
		"the parent directory is refused":       {"a/../b", "starts with a dot"},
		"a hidden name is refused":              {"a/.b", "starts with a dot"},
		"a backslash is refused":                {`a\b`, `'\\'`},
		"a NUL is refused":                      {"a\x00", "character"},
		"a letter that is not ASCII is refused": {"ä", "character"},
		"a long element is refused":             {strings.Repeat("a", 201), "at most 200"},
		"a long key is refused":                 {strings.Repeat("abcdefg/", 64) + "a", "at most 512"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := ValidateKey(tt.key)
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("the error is %v and should say %q", err, tt.says)
			}
		})
	}
}

func TestValidatePrefix(t *testing.T) {
	tests := map[string]struct {
		prefix string
		valid  bool
	}{
		"the empty prefix is that of all keys": {"", true},
		"a directory is a prefix":              {"a/b/", true},
		"the beginning of an element is one":   {"a/b", true},
		"no key starts with a slash":           {"/", false},
		"no key starts with the parent":        {"../", false},
		"no element starts with a dot":         {"a/.", false},
		"no key has a doubled slash":           {"a//", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := ValidatePrefix(tt.prefix); (err == nil) != tt.valid {
				t.Errorf("the error is %v", err)
			}
		})
	}
}
