package sidecar

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// askedAnnotation on a content is what the driver is, or was, asked for. It is
// written together with the mark that says so. A repetition must ask for the
// same, whatever has become of the class and of this program's flags.
const askedAnnotation = "snapshot.holdfast.io/asked-for"

// refusedAnnotation on a content is since when the driver has refused what it is asked
// for while it is not known whether an earlier call has made it.
const refusedAnnotation = "snapshot.holdfast.io/refused-since"

// refusedSince reads it; zero if it is not there, or cannot be read.
func refusedSince(c *Content) time.Time {
	since, err := time.Parse(time.RFC3339, c.Object.GetAnnotations()[refusedAnnotation])
	if err != nil {
		return time.Time{}
	}
	return since
}

// asked is what the driver is asked for, as it is on record.
type asked struct {
	Name       string            `json:"name"`
	Parameters map[string]string `json:"parameters,omitempty"`
}

// askedOf reads the record; nil if there is none, for upstream's csi-snapshotter
// writes none. One that cannot be read is treated as none: people can write
// annotations.
func askedOf(c *Content) *asked {
	text := c.Object.GetAnnotations()[askedAnnotation]
	a := &asked{}
	if text == "" || json.Unmarshal([]byte(text), a) != nil || a.Name == "" {
		return nil
	}
	return a
}

func (a *asked) String() string {
	text, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("encoding two fields of text: %v", err)) // Cannot happen.
	}
	return string(text)
}

// want is what a content's class asks for now.
func want(k Kind, c *Content, class *snapshot.Class, describe bool) (*asked, error) {
	name, err := k.Naming().Name(c.Ref.UID)
	if err != nil {
		return nil, snapshot.Problemf(k.Reasons().Create, "%v", err)
	}
	parameters, err := snapshot.DriverParameters(class.Parameters)
	if err != nil {
		return nil, snapshot.Problemf(k.Reasons().Create, "class %s: %v", class.Name, err)
	}
	if describe {
		k.Describe(parameters, c)
	}
	return &asked{Name: name, Parameters: parameters}, nil
}
