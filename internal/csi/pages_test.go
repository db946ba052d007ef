package csi

import (
	"errors"
	"strconv"
	"testing"
)

func TestAListWithNewTokensForEverEnds(t *testing.T) {
	endless, pages := errors.New("endless"), 0
	fetch := func(string) ([]int, string, error) { pages++; return nil, strconv.Itoa(pages), nil }
	var got error
	for _, err := range paginate(fetch, func(int) error { return nil }, func() error { return endless }) {
		got = err
	}
	if !errors.Is(got, endless) || pages != maxPages {
		t.Errorf("got %v after %d pages, want an error after %d", got, pages, maxPages)
	}
}
