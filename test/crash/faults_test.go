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

// A fault is how a point is struck.
type fault struct {
	name          string
	before        bool // before the work is done, else after it
	kills         bool // the process dies
	dropsResponse bool // the process lives and gets no answer

	// code is what the driver answers in place of what it would, unless it is OK.
	code codes.Code
	// status is what the API server answers in place of what it would, unless it
	// is 0.
	status int
	// slow calls are worked on when their caller has given up, and late ones not
	// before the driver has answered the caller's next try.
	slow, late bool
}

// killFaults are the ways to strike at any point.
var killFaults = []fault{
	{name: "killed before", before: true, kills: true},
	{name: "killed after", kills: true},
	responseLost,
}

var responseLost = fault{name: "response lost at", dropsResponse: true}

// apiErrors are what the API server may answer to a write.
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

// internalAfter is an error of a driver that has done its work: it fails on the way back.
var internalAfter = fault{name: codes.Internal.String() + " after", code: codes.Internal}

// errorInstead is an error of a driver that has done nothing.
func errorInstead(code codes.Code) fault {
	return fault{name: code.String() + " instead of", before: true, code: code}
}

// outlivesCaller tells whether a call takes longer than its caller waits.
func (w fault) outlivesCaller() bool { return w.slow || w.late }

// leavesOutcomeUnknown tells whether a caller that was struck cannot know what became of its
// call. That calls which make something may have done so when they fail inside the
// driver is what internal/csi says of these codes.
func (w fault) leavesOutcomeUnknown(method csi.Method) bool {
	return w.kills || w.dropsResponse || w.outlivesCaller() || w.code != codes.OK && csi.Classify(method, w.code) == csi.OutcomeUnknown
}

// driverError is what the driver answers that does no work; nil if it does.
func (w fault) driverError() error {
	switch {
	case w.kills:
		return status.Error(codes.Unavailable, "the caller died")
	case w.code != codes.OK:
		return status.Error(w.code, "the driver refuses")
	default:
		return nil
	}
}

// A injection is what one run is about; the zero value is a run without a fault.
type injection struct {
	at    point // where the process is struck; "" for nowhere
	fault fault
	// retryFault is how the repetition of the call is struck that was struck at that
	// point: the next call about the same thing. The zero value leaves it alone.
	retryFault fault
	// disruption is where the world takes the scenario's turn; "" for nowhere. If it
	// is where the process is killed too, it is dead at that time.
	disruption point
}

// retryPoint is the point at which a call that was struck is repeated.
const retryPoint point = "its retry"

// label names a strike, in a way that suits -run; turn says what happens there.
func (s injection) label(turn string) string {
	var parts []string
	if s.disruption != "" && s.disruption == s.at {
		parts = append(parts, turn)
	} else if s.disruption != "" && s.disruption != retryPoint {
		parts = append(parts, fmt.Sprintf("%s before %s", turn, s.disruption))
	}
	if s.at != "" {
		parts = append(parts, fmt.Sprintf("%s %s", s.fault.name, s.at))
	}
	if s.disruption == retryPoint {
		parts = append(parts, turn)
	}
	if s.retryFault.name != "" {
		parts = append(parts, fmt.Sprintf("%s %s", s.retryFault.name, retryPoint))
	}
	if len(parts) == 0 {
		return "no fault"
	}
	return strings.Join(parts, ", ")
}

// kind is the way of a strike, whatever the point: of a second one if there are
// two. It is "" for a run without a fault.
func (s injection) kind() string {
	if s.retryFault.name != "" {
		return fmt.Sprintf("%s %s", s.retryFault.name, retryPoint)
	}
	return s.fault.name
}

// faultKinds are all that there are.
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

// needsShortTimeouts tells whether the processes must have little patience with the driver.
func (s injection) needsShortTimeouts() bool { return s.fault.outlivesCaller() }

// countFaults is how many there are in a run.
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

// creatingMethods are the calls that make something, which can be lost.
var creatingMethods = []csi.Method{
	csi.CreateVolume, csi.CreateSnapshot, csi.CreateVolumeGroupSnapshot, csi.ControllerPublishVolume, csi.ControllerExpandVolume,
}

// changingMethods are the calls that change something.
var changingMethods = append([]csi.Method{
	csi.DeleteVolume, csi.DeleteSnapshot, csi.DeleteVolumeGroupSnapshot, csi.ControllerUnpublishVolume, csi.ControllerModifyVolume,
}, creatingMethods...)

// method is the call that a point is; ok is false for a write.
func (p point) method() (method csi.Method, ok bool) {
	parts := strings.Fields(string(p))
	return csi.Method(parts[0]), len(parts) == 2
}

// errorFaults are the ways to strike at a point with an answer that is an error, or
// with one that comes too late.
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

// unknownOutcomeFaults are the ways to strike that leave a caller without knowing whether
// something was made.
var unknownOutcomeFaults = []fault{{name: "killed after", kills: true}, responseLost, internalAfter, slowFault, lateFault}

// retryErrors are what a driver may answer to the repetition of a call.
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

// faultPairs strike twice at all points at which something is made: the caller does
// not learn whether it was, and the repetition is refused. If the scenario has a
// turn, that comes with the first strike or with the second.
func (sc *scenario) faultPairs(points []point) []injection {
	if sc.leaders > 1 {
		return nil // The other leader's call is no repetition.
	}
	turns := func(point) []point { return []point{""} }
	if sc.disruption != nil {
		turns = func(p point) []point { return []point{p, retryPoint} }
	}
	var all []injection
	for _, p := range points {
		method, _ := p.method()
		if !slices.Contains(creatingMethods, method) {
			continue
		}
		for _, first := range unknownOutcomeFaults {
			for _, second := range retryErrors(method) {
				for _, turn := range turns(p) {
					all = append(all, injection{at: p, fault: first, retryFault: second, disruption: turn})
				}
			}
		}
	}
	return all
}

// injectionsAt strikes in every way at all points from the turn on. With errors, and with
// answers that come too late, it strikes at the turn only if there is one.
func injectionsAt(points []point, turn point) []injection {
	points = points[max(0, slices.Index(points, turn)):]
	var all []injection
	for _, p := range points {
		ways := killFaults
		if turn == "" || turn == p {
			ways = slices.Concat(killFaults, errorFaults(p))
		}
		for _, w := range ways {
			all = append(all, injection{at: p, fault: w, disruption: turn})
		}
	}
	return all
}
