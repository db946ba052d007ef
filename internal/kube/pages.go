package kube

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// EachPage lists objects at the API server, in pages of at most size, and calls each for
// every page. All pages are of one moment; if they take longer than the API server keeps
// that, the error is 410 (Gone). Each page is a list of its own: what is decoded into a list
// that has objects keeps fields of those.
func EachPage[T any, P interface {
	*T
	client.ObjectList
}](ctx context.Context, from client.Reader, size int64, each func(P) error, o ...client.ListOption) error {
	for next := ""; ; {
		page := P(new(T))
		options := append([]client.ListOption{client.Limit(size), client.Continue(next)}, o...)
		if err := from.List(ctx, page, options...); err != nil {
			return err
		}
		next = page.GetContinue() // each may change the page.
		if err := each(page); err != nil {
			return err
		}
		if next == "" {
			return nil
		}
	}
}
