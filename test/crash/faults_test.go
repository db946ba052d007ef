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

// A way is how a point is struck.
type way struct {
	name  string
	early bool // before the work is done, else after it
	kills bool // the process dies
	loses bool // the process lives and gets no answer

	// code is what the driver answers in place of what it would, unless it is OK.
	code codes.Code
	// status is what the API server answers in place of what it would, unless it
	// is 0.
	status int
	// slow calls are worked on when their caller has given up, and late ones not
	// before the driver has answered the caller's next try.
	slow, late bool
}

// deaths are the ways to strike at any point.
var deaths = []way{
	{name: "killed before", early: true, kills: true},
	{name: "killed after", kills: true},
	answerLost,
}

var answerLost = way{name: "answer lost at", loses: true}

// refusals are what the API server may answer to a write.
var refusals = []way{
	{name: "403 instead of", early: true, status: http.StatusForbidden},
	{name: "409 instead of", early: true, status: http.StatusConflict},
	{name: "422 instead of", early: true, status: http.StatusUnprocessableEntity},
	{name: "429 instead of", early: true, status: http.StatusTooManyRequests},
	{name: "500 instead of", early: true, status: http.StatusInternalServerError},
	{name: "500 after", status: http.StatusInternalServerError},
	{name: "504 after", status: http.StatusGatewayTimeout},
}

var (
	slow = way{name: "slow", slow: true}
	late = way{name: "late", late: true}
)

// broken is an error of a driver that has done its work: it fails on the way back.
var broken = way{name: codes.Internal.String() + " after", code: codes.Internal}

// instead is an error of a driver that has done nothing.
func instead(code codes.Code) way {
	return way{name: code.String() + " instead of", early: true, code: code}
}

// outlasts tells whether a call takes longer than its caller waits.
func (w way) outlasts() bool { return w.slow || w.late }

// unsure tells whether a caller that was struck cannot know what became of its
// call. That calls which make something may have done so when they fail inside the
// driver is what internal/csi says of these codes.
func (w way) unsure(method csi.Method) bool {
	return w.kills || w.loses || w.outlasts() || w.code != codes.OK && csi.Classify(method, w.code) == csi.OutcomeUnknown
}

// refusal is what the driver answers that does no work; nil if it does.
func (w way) refusal() error {
	switch {
	case w.kills:
		return status.Error(codes.Unavailable, "the caller died")
	case w.code != codes.OK:
		return status.Error(w.code, "the driver refuses")
	default:
		return nil
	}
}

// A strike is what one run is about; the zero value is a run without a fault.
type strike struct {
	at  point // where the process is struck; "" for nowhere
	way way
	// again is how the repetition of the call is struck that was struck at that
	// point: the next call about the same thing. The zero value leaves it alone.
	again way
	// turn is where the world takes the scenario's turn; "" for nowhere. If it
	// is where the process is killed too, it is dead at that time.
	turn point
}

// repeated is the point at which a call that was struck is repeated.
const repeated point = "its repetition"

// label names a strike, in a way that suits -run; turn says what happens there.
func (s strike) label(turn string) string {
	var parts []string
	if s.turn != "" && s.turn == s.at {
		parts = append(parts, turn)
	} else if s.turn != "" && s.turn != repeated {
		parts = append(parts, fmt.Sprintf("%s before %s", turn, s.turn))
	}
	if s.at != "" {
		parts = append(parts, fmt.Sprintf("%s %s", s.way.name, s.at))
	}
	if s.turn == repeated {
		parts = append(parts, turn)
	}
	if s.again.name != "" {
		parts = append(parts, fmt.Sprintf("%s %s", s.again.name, repeated))
	}
	if len(parts) == 0 {
		return "no fault"
	}
	return strings.Join(parts, ", ")
}

// kind is the way of a strike, whatever the point: of a second one if there are
// two. It is "" for a run without a fault.
func (s strike) kind() string {
	if s.again.name != "" {
		return fmt.Sprintf("%s %s", s.again.name, repeated)
	}
	return s.way.name
}

// kinds are all that there are.
func kinds() []string {
	var all []string
	add := func(s strike) {
		if !slices.Contains(all, s.kind()) {
			all = append(all, s.kind())
		}
	}
	for _, p := range []point{"POST objects 1", point(csi.CreateVolume + " 1")} {
		for _, s := range over([]point{p}, "") {
			add(s)
		}
		for _, s := range (&scenario{}).pairs([]point{p}) {
			add(s)
		}
	}
	return all
}

// hasty tells whether the processes must have little patience with the driver.
func (s strike) hasty() bool { return s.way.outlasts() }

// blows is how many there are in a run.
func (s strike) blows() int {
	n := 0
	if s.at != "" {
		n++
	}
	if s.again.name != "" {
		n++
	}
	if s.turn != "" && s.turn != s.at && s.turn != repeated {
		n++
	}
	return n
}

// makers are the calls that make something, which can be lost.
var makers = []csi.Method{
	csi.CreateVolume, csi.CreateSnapshot, csi.CreateVolumeGroupSnapshot, csi.ControllerPublishVolume, csi.ControllerExpandVolume,
}

// changers are the calls that change something.
var changers = append([]csi.Method{
	csi.DeleteVolume, csi.DeleteSnapshot, csi.DeleteVolumeGroupSnapshot, csi.ControllerUnpublishVolume, csi.ControllerModifyVolume,
}, makers...)

// method is the call that a point is; ok is false for a write.
func (p point) method() (method csi.Method, ok bool) {
	parts := strings.Fields(string(p))
	return csi.Method(parts[0]), len(parts) == 2
}

// errorsAt are the ways to strike at a point with an answer that is an error, or
// with one that comes too late.
func errorsAt(p point) []way {
	method, call := p.method()
	switch {
	case !call:
		return refusals
	case !slices.Contains(changers, method):
		return []way{broken}
	case method == csi.CreateVolume:
		return []way{broken, instead(codes.InvalidArgument), instead(codes.ResourceExhausted), slow, late}
	default:
		return []way{broken, instead(codes.InvalidArgument), slow, late}
	}
}

// unsure are the ways to strike that leave a caller without knowing whether
// something was made.
var unsure = []way{{name: "killed after", kills: true}, answerLost, broken, slow, late}

// refusalsOf are what a driver may answer to the repetition of a call.
func refusalsOf(method csi.Method) []way {
	all := []way{instead(codes.Internal), instead(codes.InvalidArgument)}
	if method != csi.ControllerExpandVolume {
		all = append(all, instead(codes.AlreadyExists))
	}
	if method == csi.CreateVolume {
		all = append(all, instead(codes.ResourceExhausted))
	}
	return all
}

// pairs strike twice at all points at which something is made: the caller does
// not learn whether it was, and the repetition is refused. If the scenario has a
// turn, that comes with the first strike or with the second.
func (sc *scenario) pairs(points []point) []strike {
	if sc.leaders > 1 {
		return nil // The other leader's call is no repetition.
	}
	turns := func(point) []point { return []point{""} }
	if sc.turn != nil {
		turns = func(p point) []point { return []point{p, repeated} }
	}
	var all []strike
	for _, p := range points {
		method, _ := p.method()
		if !slices.Contains(makers, method) {
			continue
		}
		for _, first := range unsure {
			for _, second := range refusalsOf(method) {
				for _, turn := range turns(p) {
					all = append(all, strike{at: p, way: first, again: second, turn: turn})
				}
			}
		}
	}
	return all
}

// over strikes in every way at all points from the turn on. With errors, and with
// answers that come too late, it strikes at the turn only if there is one.
func over(points []point, turn point) []strike {
	points = points[max(0, slices.Index(points, turn)):]
	var all []strike
	for _, p := range points {
		ways := deaths
		if turn == "" || turn == p {
			ways = slices.Concat(deaths, errorsAt(p))
		}
		for _, w := range ways {
			all = append(all, strike{at: p, way: w, turn: turn})
		}
	}
	return all
}
