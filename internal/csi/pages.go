package csi

import "iter"

const pageLoop = "the next token of a page leads back to an earlier page, or the list has no end"

// paginate yields the entries of all pages in order and ends with the first error.
// loop creates the error for a page whose next token was used before, and for a list that
// has too many pages: a driver that makes up a new token each time never ends either.
func paginate[Entry any](fetch func(token string) ([]Entry, string, error), check func(Entry) error, loop func() error) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var none Entry
		read := map[string]bool{}
		for token := ""; ; {
			entries, next, err := fetch(token)
			if err != nil {
				yield(none, err)
				return
			}
			for _, e := range entries {
				if err := check(e); err != nil {
					yield(none, err)
					return
				}
				if !yield(e, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			if read[token] = true; read[next] || len(read) >= maxPages {
				yield(none, loop())
				return
			}
			token = next
		}
	}
}
