package capacity

import (
	"hash/fnv"
	"time"

	storagev1 "k8s.io/api/storage/v1"
)

// A changes is a decision about the objects of one pair. The zero step is to leave
// them as they are.
type changes struct {
	create   *storagev1.CSIStorageCapacity
	update   *storagev1.CSIStorageCapacity  // the kept one, as it should be
	existing *storagev1.CSIStorageCapacity  // the kept one, as it is
	obsolete []storagev1.CSIStorageCapacity // obsolete ones, or doubles
}

// decide holds every rule about which objects there are and what they say. It
// does no I/O; each rule is a row of its test.
func decide(s state, o *Options) changes {
	if !s.isWanted() {
		return changes{obsolete: s.objects}
	}
	desired := o.object(&s)
	if len(s.objects) == 0 {
		return changes{create: desired}
	}
	next := changes{obsolete: s.objects[1:]}
	if update := updated(&s.objects[0], desired); update != nil {
		next.existing, next.update = &s.objects[0], update
	}
	return next
}

// untilPoll is the time until the pair's next poll. Each pair has its own
// moment in every interval, so that the driver is not asked about all at once
// however they were found.
func untilPoll(p pair, interval time.Duration, now time.Time) time.Duration {
	hash := fnv.New64a()
	hash.Write([]byte(p.String()))
	moment := time.Duration(hash.Sum64() % uint64(interval))
	since := (time.Duration(now.UnixNano()) - moment) % interval
	return interval - since
}
