package capacity

import (
	"hash/fnv"
	"time"

	storagev1 "k8s.io/api/storage/v1"
)

// changes are what to do with the objects of one pair. The zero value is nothing.
type changes struct {
	create   *storagev1.CSIStorageCapacity
	update   *storagev1.CSIStorageCapacity  // the object that stays, as it should be
	existing *storagev1.CSIStorageCapacity  // the object that stays, as it is
	obsolete []storagev1.CSIStorageCapacity // to be deleted; duplicates too
}

// decide has all rules about which objects exist and what they contain. It does no
// I/O; each rule is a row of its test.
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

// untilPoll is the time until the pair's next poll. Each pair has its own offset in
// the interval, so that the calls to the driver are spread over the interval.
func untilPoll(p pair, interval time.Duration, now time.Time) time.Duration {
	hash := fnv.New64a()
	hash.Write([]byte(p.String()))
	moment := time.Duration(hash.Sum64() % uint64(interval))
	since := (time.Duration(now.UnixNano()) - moment) % interval
	return interval - since
}
