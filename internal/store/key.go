package store

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of keys, in bytes. S3 has 1024 for a prefix and a key together; filesystems have
// 255 for an element, and a partial file needs a longer name than its object.
const (
	MaxKeyLength     = 512
	MaxElementLength = 200
)

// ValidateKey returns an error if a store does not take the key of an object. A key is a
// relative path with slashes. Its elements have no characters but ASCII letters, digits,
// '.', '_' and '-', and none starts with a dot.
func ValidateKey(key string) error {
	if len(key) > MaxKeyLength {
		return fmt.Errorf("the key has %d bytes: at most %d are allowed", len(key), MaxKeyLength)
	}
	for element := range strings.SplitSeq(key, "/") {
		if err := validateElement(element); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	return nil
}

// ValidatePrefix returns an error if no key can start with the prefix.
func ValidatePrefix(prefix string) error {
	if strings.HasSuffix(prefix, "/") || prefix == "" {
		return ValidateKey(prefix + "x")
	}
	return ValidateKey(prefix)
}

func validateElement(element string) error {
	switch {
	case element == "":
		return errors.New("an element is empty: write it without a leading, trailing or doubled slash")
	case element[0] == '.':
		return fmt.Errorf("the element %q starts with a dot", element)
	case len(element) > MaxElementLength:
		return fmt.Errorf("an element has %d bytes: at most %d are allowed", len(element), MaxElementLength)
	}
	for _, c := range []byte(element) {
		if !inKey(c) {
			return fmt.Errorf("the element %q has the character %q: only letters, digits, '.', '_' and '-' are allowed", element, c)
		}
	}
	return nil
}

func inKey(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}
