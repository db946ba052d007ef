package kube

import (
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// SkipInitialList drops the events of an informer's initial list. It is for watches that
// only map to the objects that a controller reconciles. At its start the controller
// reconciles all of those anyway, with synced caches. Mapping each of ten thousand
// volumes would find no others.
func SkipInitialList() predicate.Funcs {
	return predicate.Funcs{CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList }}
}
