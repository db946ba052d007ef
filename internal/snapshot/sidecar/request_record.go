package sidecar

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// requestAnnotation on a content has the request that is, or was, sent to the driver. It is
// written together with the being-created annotation. A retry must send the same request,
// even if the class or the flags of this program have changed.
const requestAnnotation = "snapshot.holdfast.io/asked-for"

// rejectedSinceAnnotation on a content is since when the driver has rejected the request,
// while it is unknown whether an earlier call created the snapshot.
const rejectedSinceAnnotation = "snapshot.holdfast.io/refused-since"

// rejectedSince reads the annotation. It returns zero if the annotation is missing or invalid.
func rejectedSince(c *Content) time.Time {
	since, err := time.Parse(time.RFC3339, c.Object.GetAnnotations()[rejectedSinceAnnotation])
	if err != nil {
		return time.Time{}
	}
	return since
}

// A requestRecord is the request as it is recorded on the content.
type requestRecord struct {
	Name       string            `json:"name"`
	Parameters map[string]string `json:"parameters,omitempty"`
}

// recordedRequest reads the recorded request. It returns nil if there is none: upstream's
// csi-snapshotter does not record it. An invalid record counts as none, because users can
// change annotations.
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
		panic(fmt.Sprintf("encoding the request: %v", err)) // Cannot happen.
	}
	return string(text)
}

// newRequestRecord returns the request that follows from a content and its class.
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
