package sidecar

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// requestAnnotation on a content is what the driver is, or was, asked for. It is
// written together with the mark that says so. A repetition must ask for the
// same, whatever has become of the class and of this program's flags.
const requestAnnotation = "snapshot.holdfast.io/asked-for"

// rejectedSinceAnnotation on a content is since when the driver has refused what it is asked
// for while it is not known whether an earlier call has made it.
const rejectedSinceAnnotation = "snapshot.holdfast.io/refused-since"

// rejectedSince reads it; zero if it is not there, or cannot be read.
func rejectedSince(c *Content) time.Time {
	since, err := time.Parse(time.RFC3339, c.Object.GetAnnotations()[rejectedSinceAnnotation])
	if err != nil {
		return time.Time{}
	}
	return since
}

// requestRecord is what the driver is asked for, as it is on record.
type requestRecord struct {
	Name       string            `json:"name"`
	Parameters map[string]string `json:"parameters,omitempty"`
}

// recordedRequest reads the record; nil if there is none, for upstream's csi-snapshotter
// writes none. One that cannot be read is treated as none: people can write
// annotations.
func recordedRequest(c *Content) *requestRecord {
	text := c.Object.GetAnnotations()[requestAnnotation]
	record := &requestRecord{}
	if text == "" || json.Unmarshal([]byte(text), record) != nil || record.Name == "" {
		return nil
	}
	return record
}

func (r *requestRecord) String() string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("encoding two fields of text: %v", err)) // Cannot happen.
	}
	return string(text)
}

// newRequestRecord is what a content's class asks for now.
func newRequestRecord(k ContentKind, c *Content, class *snapshot.Class, describe bool) (*requestRecord, error) {
	name, err := k.Naming().Name(c.Ref.UID)
	if err != nil {
		return nil, snapshot.Problemf(k.Reasons().Create, "%v", err)
	}
	parameters, err := snapshot.DriverParameters(class.Parameters)
	if err != nil {
		return nil, snapshot.Problemf(k.Reasons().Create, "class %s: %v", class.Name, err)
	}
	if describe {
		k.AddMetadata(parameters, c)
	}
	return &requestRecord{Name: name, Parameters: parameters}, nil
}
