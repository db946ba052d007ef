package crash

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// A fault is what happens at a point.
type fault struct {
	name          string
	before        bool // before the work is done, otherwise after it
	kills         bool // the process dies
	dropsResponse bool // the process lives and gets no response

	// code is the error that the driver returns instead of its response, unless it is OK.
	code codes.Code
	// status is the HTTP status that the API server returns instead of its response,
	// unless it is 0.
	status int
	// slow calls are worked on after their caller has given up; late calls not before the
	// driver has answered the caller's retry.
	slow, late bool
}

// killFaults apply to any point.
var killFaults = []fault{
	{name: "killed before", before: true, kills: true},
	{name: "killed after", kills: true},
	responseLost,
}

var responseLost = fault{name: "response lost at", dropsResponse: true}

// apiErrors are errors that the API server may return for a write.
var apiErrors = []fault{
	{name: "403 instead of", before: true, status: http.StatusForbidden},
	{name: "409 instead of", before: true, status: http.StatusConflict},
	{name: "422 instead of", before: true, status: http.StatusUnprocessableEntity},
	{name: "429 instead of", before: true, status: http.StatusTooManyRequests},
	{name: "500 instead of", before: true, status: http.StatusInternalServerError},
	{name: "500 after", status: http.StatusInternalServerError},
	{name: "504 after", status: http.StatusGatewayTimeout},
}

var (
	slowFault = fault{name: "slow", slow: true}
	lateFault = fault{name: "late", late: true}
)

// internalAfter is an error of a driver that has done its work.
var internalAfter = fault{name: codes.Internal.String() + " after", code: codes.Internal}

// errorInstead is an error of a driver that has done nothing.
func errorInstead(code codes.Code) fault {
	return fault{name: code.String() + " instead of", before: true, code: code}
}

// outlivesCaller reports whether the call lasts longer than its caller waits.
func (f fault) outlivesCaller() bool { return f.slow || f.late }

// leavesOutcomeUnknown reports whether the caller cannot know the outcome of its call.
// internal/csi says with which codes a call may have done its work.
func (f fault) leavesOutcomeUnknown(method csi.Method) bool {
	return f.kills || f.dropsResponse || f.outlivesCaller() || f.code != codes.OK && csi.Classify(method, f.code) == csi.OutcomeUnknown
}

// driverError returns the error of a driver that does nothing; nil if it works.
func (f fault) driverError() error {
	switch {
	case f.kills:
		return status.Error(codes.Unavailable, "the caller died")
	case f.code != codes.OK:
		return status.Error(f.code, "the driver rejects the call")
	default:
		return nil
	}
}

// An injection is what one run tests; the zero value is a run without a fault.
type injection struct {
	// at is the point of the fault; "" for none.
	at    point
	fault fault
	// retryFault is the fault of the next call for the same object, after a fault at point
	// at. The zero value is none.
	retryFault fault
	// disruption is the point of the scenario's disruption; "" for none. If the process is
	// killed there too, it is dead during the disruption.
	disruption point
}

// retryPoint is the point at which a call with a fault is retried.
const retryPoint point = "its retry"

// label names an injection for -run; disruption describes the scenario's disruption.
func (s injection) label(disruption string) string {
	var parts []string
	if s.disruption != "" && s.disruption == s.at {
		parts = append(parts, disruption)
	} else if s.disruption != "" && s.disruption != retryPoint {
		parts = append(parts, fmt.Sprintf("%s before %s", disruption, s.disruption))
	}
	if s.at != "" {
		parts = append(parts, fmt.Sprintf("%s %s", s.fault.name, s.at))
	}
	if s.disruption == retryPoint {
		parts = append(parts, disruption)
	}
	if s.retryFault.name != "" {
		parts = append(parts, fmt.Sprintf("%s %s", s.retryFault.name, retryPoint))
	}
	if len(parts) == 0 {
		return "no fault"
	}
	return strings.Join(parts, ", ")
}

// kind is the fault of an injection without its point: the second one of a pair. It is
// "" without a fault.
func (s injection) kind() string {
	if s.retryFault.name != "" {
		return fmt.Sprintf("%s %s", s.retryFault.name, retryPoint)
	}
	return s.fault.name
}

// faultKinds returns all kinds of faults.
func faultKinds() []string {
	var all []string
	add := func(s injection) {
		if !slices.Contains(all, s.kind()) {
			all = append(all, s.kind())
		}
	}
	for _, p := range []point{"POST objects 1", point(csi.CreateVolume + " 1")} {
		for _, s := range injectionsAt([]point{p}, "") {
			add(s)
		}
		for _, s := range (&scenario{}).faultPairs([]point{p}) {
			add(s)
		}
	}
	return all
}

// needsShortTimeouts reports whether driver calls need a short timeout.
func (s injection) needsShortTimeouts() bool { return s.fault.outlivesCaller() }

// countFaults returns the number of faults and disruptions of a run.
func (s injection) countFaults() int {
	n := 0
	if s.at != "" {
		n++
	}
	if s.retryFault.name != "" {
		n++
	}
	if s.disruption != "" && s.disruption != s.at && s.disruption != retryPoint {
		n++
	}
	return n
}

// creatingMethods are calls whose result can be lost.
var creatingMethods = []csi.Method{
	csi.CreateVolume, csi.CreateSnapshot, csi.CreateVolumeGroupSnapshot, csi.ControllerPublishVolume, csi.ControllerExpandVolume,
}

// changingMethods are calls that change something.
var changingMethods = append([]csi.Method{
	csi.DeleteVolume, csi.DeleteSnapshot, csi.DeleteVolumeGroupSnapshot, csi.ControllerUnpublishVolume, csi.ControllerModifyVolume,
}, creatingMethods...)

// method returns the call of a point; ok is false for a write.
func (p point) method() (method csi.Method, ok bool) {
	parts := strings.Fields(string(p))
	return csi.Method(parts[0]), len(parts) == 2
}

// errorFaults returns the faults at a point that return an error, or respond too late.
func errorFaults(p point) []fault {
	method, call := p.method()
	switch {
	case !call:
		return apiErrors
	case !slices.Contains(changingMethods, method):
		return []fault{internalAfter}
	case method == csi.CreateVolume:
		return []fault{internalAfter, errorInstead(codes.InvalidArgument), errorInstead(codes.ResourceExhausted), slowFault, lateFault}
	default:
		return []fault{internalAfter, errorInstead(codes.InvalidArgument), slowFault, lateFault}
	}
}

// unknownOutcomeFaults leave the caller without knowing whether something was created.
var unknownOutcomeFaults = []fault{{name: "killed after", kills: true}, responseLost, internalAfter, slowFault, lateFault}

// retryErrors are errors that a driver may return for the retry of a call.
func retryErrors(method csi.Method) []fault {
	all := []fault{errorInstead(codes.Internal), errorInstead(codes.InvalidArgument)}
	if method != csi.ControllerExpandVolume {
		all = append(all, errorInstead(codes.AlreadyExists))
	}
	if method == csi.CreateVolume {
		all = append(all, errorInstead(codes.ResourceExhausted))
	}
	return all
}

// faultPairs returns the injections of two faults at all points at which something is
// created: the caller does not learn the outcome, and its retry fails. The scenario's
// disruption comes with the first fault or with the second.
func (sc *scenario) faultPairs(points []point) []injection {
	if sc.leaders > 1 {
		return nil // The other leader's call is no retry.
	}
	disruptions := func(point) []point { return []point{""} }
	if sc.disruption != nil {
		disruptions = func(p point) []point { return []point{p, retryPoint} }
	}
	var all []injection
	for _, p := range points {
		method, _ := p.method()
		if !slices.Contains(creatingMethods, method) {
			continue
		}
		for _, first := range unknownOutcomeFaults {
			for _, second := range retryErrors(method) {
				for _, disruption := range disruptions(p) {
					all = append(all, injection{at: p, fault: first, retryFault: second, disruption: disruption})
				}
			}
		}
	}
	return all
}

// injectionsAt returns the injections of every fault at all points from the disruption
// on. Errors and late responses are injected only at the disruption, if there is one.
func injectionsAt(points []point, disruption point) []injection {
	points = points[max(0, slices.Index(points, disruption)):]
	var all []injection
	for _, p := range points {
		faults := killFaults
		if disruption == "" || disruption == p {
			faults = slices.Concat(killFaults, errorFaults(p))
		}
		for _, f := range faults {
			all = append(all, injection{at: p, fault: f, disruption: disruption})
		}
	}
	return all
}
