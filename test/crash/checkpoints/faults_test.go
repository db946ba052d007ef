package checkpoints

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/store"
)

// A fault is what happens at a point.
type fault struct {
	name          string
	before        bool  // before the work is done, otherwise after it
	kills         bool  // the process dies
	dropsResponse bool  // the process lives and gets no response of the API server
	status        int   // HTTP status that the API server returns instead of its response, unless it is 0
	err           error // that the engine or the store returns instead of its result
}

var killFaults = []fault{
	{name: "killed before", before: true, kills: true},
	{name: "killed after", kills: true},
}

// apiFaults apply to writes to the API server.
var apiFaults = []fault{
	{name: "response lost at", dropsResponse: true},
	{name: "403 instead of", before: true, status: http.StatusForbidden},
	{name: "409 instead of", before: true, status: http.StatusConflict},
	{name: "422 instead of", before: true, status: http.StatusUnprocessableEntity},
	{name: "429 instead of", before: true, status: http.StatusTooManyRequests},
	{name: "500 instead of", before: true, status: http.StatusInternalServerError},
	{name: "500 after", status: http.StatusInternalServerError},
	{name: "504 after", status: http.StatusGatewayTimeout},
}

// engineFaults apply to the points of an engine's calls: the call ends there.
var engineFaults = []fault{
	{name: "killed at", before: true, kills: true},
	{name: "error at", before: true, err: errors.New("the disk has a bad sector")},
}

// storeFaults apply to calls to a store.
var storeFaults = []fault{
	{name: "unavailable instead of", before: true, err: fmt.Errorf("%w: the test says so", store.ErrUnavailable)},
	{name: "full instead of", before: true, err: fmt.Errorf("%w: the test says so", store.ErrFull)},
	{name: "denied instead of", before: true, err: fmt.Errorf("%w: the test says so", store.ErrDenied)},
	{name: "unavailable after", err: fmt.Errorf("%w: the test says so", store.ErrUnavailable)},
}

// faultsAt returns the faults at a point.
func faultsAt(p point) []fault {
	switch {
	case strings.Contains(string(p), " engine "):
		return engineFaults
	case strings.Contains(string(p), " store "):
		return slices.Concat(killFaults, storeFaults)
	default:
		return slices.Concat(killFaults, apiFaults)
	}
}

// faultNames returns the names of all faults.
func faultNames() []string {
	var all []string
	for _, f := range slices.Concat(killFaults, apiFaults, engineFaults, storeFaults) {
		all = append(all, f.name)
	}
	return all
}
