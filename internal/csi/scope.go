package csi

// maxTargets bounds the targets that a limiter remembers.
const maxTargets = 1000

// A scope is a set of calls that share a limit: all calls of a method, those about a
// node, a class, or a source of volumes. Scopes form a tree, and a call needs room in
// each scope above it.
//
// The limit of a target without parts is half of the calls that were in flight when
// one timed out. It grows by one for each batch of that size that is answered in time
// (additive increase, multiplicative decrease, as in TCP). A target is silent while
// nothing has been answered since a call was sent that timed out. All silent targets
// together have as many calls in flight as the floor, and each at least one, so that its
// recovery is noticed.
//
// One target that times out says nothing about the others: a scope with parts is
// lowered only when at least two of them, and half of those with a result lately, time
// out. A part that goes on timing out counts once.
type scope struct {
	name    string
	parent  *scope // nil for all calls of the method
	parts   map[string]*scope
	running int
	users   int // calls that run or wait

	limit  float64 // 0 is unlimited
	silent bool
	// silentRunning is the calls that run about silent targets, in the scope of all calls.
	silentRunning int

	// Times on the limiter's clock, which counts events.
	lowered, lastAnswer, lastTimeout uint64
}

// find returns the scope of a target, and creates it if it is new.
func (s *scope) find(path []target) *scope {
	for _, t := range path {
		part := s.parts[t.key]
		if part == nil {
			s.forgetIdle()
			part = &scope{name: t.name, parent: s}
			if s.parts == nil {
				s.parts = map[string]*scope{}
			}
			s.parts[t.key] = part
		}
		s = part
	}
	return s
}

// forgetIdle makes room for a new part: targets come and go for as long as the process
// runs. Those that do not answer are remembered longest.
func (s *scope) forgetIdle() {
	for _, silentToo := range []bool{false, true} {
		if len(s.parts) < maxTargets {
			return
		}
		for key, part := range s.parts {
			if part.users == 0 && (silentToo || !part.silent) {
				delete(s.parts, key)
			}
		}
	}
}

// use adds n to the calls that run or wait.
func (s *scope) use(n int) {
	for ; s != nil; s = s.parent {
		s.users += n
	}
}

// run adds n to the calls that run.
func (s *scope) run(n int) {
	if s.silent {
		s.all().silentRunning += n
	}
	for ; s != nil; s = s.parent {
		s.running += n
	}
}

// all returns the scope of all calls.
func (s *scope) all() *scope {
	for s.parent != nil {
		s = s.parent
	}
	return s
}

// setSilent sets whether a target is silent. All calls together are no target.
func (s *scope) setSilent(silent bool) {
	if s.silent == silent || s.parent == nil {
		return
	}
	s.silent = silent
	if len(s.parts) > 0 {
		return
	}
	if !silent {
		s.all().silentRunning -= s.running
	} else {
		s.all().silentRunning += s.running
	}
}

// full returns the innermost scope that has no room for another call, nil if all have.
func (s *scope) full(floor int) *scope {
	if s.silent && s.running > 0 && s.all().silentRunning >= floor {
		return s
	}
	for ; s != nil; s = s.parent {
		if s.limit > 0 && s.running >= int(s.limit) {
			return s
		}
	}
	return nil
}

// fewerThan reports whether fewer calls are in flight here than in another scope. The
// outermost targets are compared first.
func (s *scope) fewerThan(other *scope) bool {
	if a, b := s.outermost().running, other.outermost().running; a != b {
		return a < b
	}
	return s.running < other.running
}

// outermost returns the scope below that of all calls, or that one itself.
func (s *scope) outermost() *scope {
	for s.parent != nil && s.parent.parent != nil {
		s = s.parent
	}
	return s
}

// answered raises the limits that are reached. One that is not has not been tested.
func (s *scope) answered(now uint64) {
	for ; s != nil; s = s.parent {
		s.lastAnswer = now
		s.setSilent(false)
		if s.limit > 0 && s.running >= int(s.limit) {
			s.limit += 1 / s.limit
		}
	}
}

// timedOut learns from a call that timed out.
func (s *scope) timedOut(sent, now uint64, floor int) {
	teaches := true
	for ; s != nil; s = s.parent {
		teaches = teaches && (len(s.parts) == 0 || s.partsTimeOut(sent))
		if teaches && sent >= s.lowered {
			s.limit, s.lowered = float64(max(s.running/2, floor)), now
		}
		teaches = s.lastTimeout <= s.lastAnswer // Otherwise, this part counts already.
		s.setSilent(s.lastAnswer < sent)
		s.lastTimeout = now
	}
}

// partsTimeOut reports whether the parts that had a result since a call was sent mostly
// time out.
func (s *scope) partsTimeOut(sent uint64) bool {
	late, active := 0, 0
	for _, part := range s.parts {
		if max(part.lastAnswer, part.lastTimeout) < sent {
			continue
		}
		active++
		if part.lastTimeout > part.lastAnswer {
			late++
		}
	}
	return late >= 2 && 2*late >= active
}

// walk visits the scope and its parts.
func (s *scope) walk(visit func(*scope)) {
	visit(s)
	for _, part := range s.parts {
		part.walk(visit)
	}
}
