package kube

import (
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// SkipInitialList lets through what is not there when a controller starts. It is for
// kinds that only lead to the objects that the controller works on. Its start
// looks at all of those anyway, when all its caches are filled: to look from each
// of ten thousand volumes for what may wait for it would find nothing else.
func SkipInitialList() predicate.Funcs {
	return predicate.Funcs{CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList }}
}
