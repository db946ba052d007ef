package runtime

import (
	"strings"
	"testing"
	"time"
)

func TestFreezeTimes(t *testing.T) {
	dump := func(step Step, mib int64, frozen time.Duration) Report {
		return Report{Step: step, Bytes: mib << 20, Frozen: frozen, Exact: true}
	}
	upperBound := dump(Disk, 1024, 8*time.Second)
	upperBound.Exact = false
	slow := dump(Disk, 1024, 8*time.Second)
	for name, row := range map[string]struct {
		dumps     []Report
		mib       int64
		permitted time.Duration
		refused   bool
	}{
		"nothing is known of a node that has dumped nothing":       {nil, 1 << 20, time.Second, false},
		"as much memory as before takes as long as before":         {[]Report{slow}, 1024, 8 * time.Second, false},
		"twice as fast as ever is possible":                        {[]Report{slow}, 1024, 4 * time.Second, false},
		"much faster than ever is not":                             {[]Report{slow}, 1024, 3 * time.Second, true},
		"more memory takes longer":                                 {[]Report{slow}, 8 * 1024, 8 * time.Second, true},
		"the fastest dump counts":                                  {[]Report{slow, dump(Disk, 1024, 2*time.Second), slow}, 1024, 3 * time.Second, false},
		"another step says nothing":                                {[]Report{dump(FreezeCopy, 1024, 8*time.Second)}, 1024, time.Second, false},
		"a small dump says nothing":                                {[]Report{dump(Disk, 64, 8*time.Second)}, 1024, time.Second, false},
		"a call that took long need not have been frozen for long": {[]Report{upperBound}, 1024, time.Second, false},
		"without a limit all is permitted":                         {[]Report{slow}, 1 << 20, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			times := FreezeTimes{}
			for _, r := range row.dumps {
				times.Learn(r)
			}
			err := times.Check(Disk, row.mib<<20, row.permitted)
			if (err != nil) != row.refused {
				t.Fatalf("got %v, want an error: %v", err, row.refused)
			}
			if err != nil && (ReasonOf(err) != Timeout || IsRetryable(err) || !strings.Contains(err.Error(), "nothing was frozen")) {
				t.Errorf("got %v with reason %s", err, ReasonOf(err))
			}
		})
	}
}
