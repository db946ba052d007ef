package kube

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MessageLimit is the maximum length of a message in a status or an event, in bytes: that of
// the API for events. A condition may have more, but nobody reads it.
const MessageLimit = 1024

// SetCondition sets a condition with the observed generation, and shortens its message to
// [MessageLimit].
func SetCondition(all *[]metav1.Condition, generation int64, c metav1.Condition) {
	c.ObservedGeneration, c.Message = generation, Truncate(c.Message, MessageLimit)
	meta.SetStatusCondition(all, c)
}
