package app

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// secondsValue is a flag value that accepts a duration or a plain number of seconds.
type secondsValue struct{ to *time.Duration }

// Set reads "90", "90s" or "1m30s".
func (s secondsValue) Set(text string) error {
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		*s.to = time.Duration(n * float64(time.Second))
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("want seconds (90) or a duration (1m30s)")
	}
	*s.to = d
	return nil
}

// String returns the value in the form that Set accepts.
func (s secondsValue) String() string {
	if s.to == nil {
		return ""
	}
	return s.to.String()
}

// Type returns the type that the help text shows.
func (s secondsValue) Type() string { return "duration" }

// labelsValue is a flag value of the form key:value,key:value.
type labelsValue struct{ to *map[string]string }

// Set reads the pairs.
func (l labelsValue) Set(text string) error {
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

// String returns the value in the form that Set accepts.
func (l labelsValue) String() string {
	if l.to == nil {
		return ""
	}
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(*l.to)) {
		pairs = append(pairs, key+":"+(*l.to)[key])
	}
	return strings.Join(pairs, ",")
}

// Type returns the type that the help text shows.
func (l labelsValue) Type() string { return "labels" }

// addressValue is a flag for an address to listen on. A number is a port, and 0 is none.
type addressValue struct{ to *string }

// Set accepts "host:port", ":port" and "port".
func (a addressValue) Set(text string) error {
	if text == "0" || text == "" {
		*a.to = ""
		return nil
	}
	if _, err := strconv.ParseUint(text, 10, 16); err == nil {
		text = ":" + text
	}
	if _, _, err := net.SplitHostPort(text); err != nil {
		return fmt.Errorf("%q is neither a port nor an address such as :8080", text)
	}
	*a.to = text
	return nil
}

// String returns the address.
func (a addressValue) String() string {
	if a.to == nil {
		return ""
	}
	return *a.to
}

// Type returns the type that the help text shows.
func (a addressValue) Type() string { return "address" }
