package csi

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// SafeName makes a driver's name valid as part of a Lease name or a finalizer: all
// characters except letters, digits and "-" become "-", and "X" is appended to a
// trailing "-".
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

// AttachFinalizer is the finalizer of a driver's csi-attacher. It is on a
// VolumeAttachment until its volume is detached, and on a PersistentVolume since it was
// attached for the first time.
func AttachFinalizer(driver string) string { return "external-attacher/" + SafeName(driver) }

// DerivedFrom reports whether a driver derived an id from the name of the request,
// as many drivers do. The name must contain the whole UID that it was derived from,
// with or without dashes: a shortened name may belong to another object.
func DerivedFrom(id, name, uid string) bool {
	bare := func(s string) string { return strings.ReplaceAll(s, "-", "") }
	return uid != "" && strings.Contains(id, name) && strings.Contains(bare(name), bare(uid))
}

// checkName checks the rules for GetPluginInfoResponse.name.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("it has no name, and Kubernetes objects refer to it by name")
	case len(name) > 63:
		return fmt.Errorf("its name %q is longer than 63 characters", name)
	case !regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?$`).MatchString(name):
		return fmt.Errorf("its name %q must consist of letters, digits, dots and dashes, and start and end with a letter or digit", name)
	default:
		return nil
	}
}
