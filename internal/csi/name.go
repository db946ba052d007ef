package csi

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// SafeName makes a driver's name fit to be part of a Lease name or a
// finalizer: every character other than letters, digits and "-" becomes "-",
// and a trailing "-" is followed by "X".
func SafeName(driver string) string {
	safe := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-':
			return r
		default:
			return '-'
		}
	}, driver)
	if strings.HasSuffix(safe, "-") {
		safe += "X"
	}
	return safe
}

// DerivedFrom tells whether an id is that of what was asked for under a name: many drivers
// make the one from the other. The name must have the whole UID in it that it was
// derived from, with or without dashes: one that was cut short may be somebody else's.
func DerivedFrom(id, name, uid string) bool {
	bare := func(s string) string { return strings.ReplaceAll(s, "-", "") }
	return uid != "" && strings.Contains(id, name) && strings.Contains(bare(name), bare(uid))
}

// checkName holds the rule of GetPluginInfoResponse.name.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("it has no name; every Kubernetes object about its volumes refers to it by name")
	case len(name) > 63:
		return fmt.Errorf("its name %q is longer than 63 characters", name)
	case !regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?$`).MatchString(name):
		return fmt.Errorf("its name %q is not letters, digits, dots and dashes that begin and end with a letter or digit", name)
	default:
		return nil
	}
}
