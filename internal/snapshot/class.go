package snapshot

import (
	"cmp"
	"strings"
)

// A Choice is how a snapshot, of either kind, comes to its class: it names one,
// or has the one that is the default of its volumes' driver.
type Choice struct {
	Kind        string   // of the class
	Marks       Marks    // of the snapshot
	Named       string   // by the snapshot; empty for none
	Defaults    []string // the driver's default classes, if none is named
	Driver      string   // of the volumes
	Claim       string   // one of those that are cut
	ClassDriver string   // of the class; empty if the class is not there

	Reason, DefaultReason string // of the events
}

// Check tells what is wrong with it.
func (c *Choice) Check() *Problem {
	switch {
	case c.Named == "" && len(c.Defaults) == 0:
		return Problemf(c.DefaultReason, "the snapshot names no class, and driver %s has no default: name a class, or give one of its %ses the annotation %s=true",
			c.Driver, c.Kind, c.Marks.Default)
	case c.Named == "" && len(c.Defaults) > 1:
		return Problemf(c.DefaultReason, "the snapshot names no class, and driver %s has %d default snapshot classes (%s): name one, or leave only one the default",
			c.Driver, len(c.Defaults), strings.Join(c.Defaults, ", "))
	case c.ClassDriver == "":
		return Problemf(c.Reason, "%s %s is not there", c.Kind, c.class())
	case c.ClassDriver != c.Driver:
		return Problemf(c.Reason, "%s %s is of driver %s, and claim %s has a volume of driver %s", c.Kind, c.class(), c.ClassDriver, c.Claim, c.Driver)
	}
	return nil
}

// class is the name of the class that it comes to.
func (c *Choice) class() string { return cmp.Or(c.Named, append(c.Defaults, "")[0]) }
