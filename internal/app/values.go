package app

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// seconds is a flag value that takes a duration or a plain number of seconds.
type seconds struct{ to *time.Duration }

// Set reads "90", "90s" or "1m30s".
func (s seconds) Set(text string) error {
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		*s.to = time.Duration(n * float64(time.Second))
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("give seconds (90) or a duration (1m30s)")
	}
	*s.to = d
	return nil
}

// String is the value as it can be set.
func (s seconds) String() string {
	if s.to == nil {
		return ""
	}
	return s.to.String()
}

// Type is what the help text calls the value.
func (s seconds) Type() string { return "duration" }

// labels is a flag value of the form key:value,key:value.
type labels struct{ to *map[string]string }

// Set reads the pairs.
func (l labels) Set(text string) error {
	all := map[string]string{}
	for _, pair := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(pair), ":")
		if !ok || key == "" {
			return fmt.Errorf("%q is not of the form key:value", pair)
		}
		all[key] = value
	}
	*l.to = all
	return nil
}

// String is the value as it can be set.
func (l labels) String() string {
	if l.to == nil {
		return ""
	}
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(*l.to)) {
		pairs = append(pairs, key+":"+(*l.to)[key])
	}
	return strings.Join(pairs, ",")
}

// Type is what the help text calls the value.
func (l labels) Type() string { return "labels" }
