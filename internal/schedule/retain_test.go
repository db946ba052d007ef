package schedule

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// daysAgo is a time so many days before noon.
func daysAgo(n int) time.Time { return noon.AddDate(0, 0, -n) }

func keepCount(n int32) *retention { return &retention{MaxCount: &n} }

// keepOne retains one snapshot of each claim.
func keepOne() *v1alpha1.Retention { return &v1alpha1.Retention{MaxCount: ptr.To[int32](1)} }

func TestExpired(t *testing.T) {
	week := &retention{MaxAge: hours(7 * 24)}
	tests := map[string]struct {
		keep      *retention
		snapshots []*childState
		want      []string
		next      time.Time
	}{
		"without retention all stay": {nil, []*childState{snapshotAt(daysAgo(1)), snapshotAt(daysAgo(400)), snapshotAt(daysAgo(401), withError)}, nil, time.Time{}},
		"the oldest beyond the count go": {
			keepCount(2), []*childState{snapshotAt(daysAgo(1)), snapshotAt(daysAgo(2)), snapshotAt(daysAgo(3)), snapshotAt(daysAgo(4))}, []string{"data-1118-1200", "data-1117-1200"}, time.Time{},
		},
		"those beyond the age go":          {week, []*childState{snapshotAt(daysAgo(6)), snapshotAt(daysAgo(7)), snapshotAt(daysAgo(8))}, []string{"data-1114-1200", "data-1113-1200"}, time.Time{}},
		"the next goes when it gets there": {week, []*childState{snapshotAt(daysAgo(1)), snapshotAt(daysAgo(6))}, nil, noon.Add(24 * time.Hour)},
		"either is enough": {
			&retention{MaxCount: ptr.To[int32](2), MaxAge: hours(24)}, []*childState{snapshotAt(noon), snapshotAt(daysAgo(3)), snapshotAt(daysAgo(4))},
			[]string{"data-1118-1200", "data-1117-1200"}, time.Time{},
		},
		"the newest stays, however old":                        {week, []*childState{snapshotAt(daysAgo(20)), snapshotAt(daysAgo(21))}, []string{"data-1031-1200"}, time.Time{}},
		"one that is not ready does not count":                 {keepCount(1), []*childState{snapshotAt(noon, notReady), snapshotAt(daysAgo(1))}, nil, time.Time{}},
		"one that fails does not count":                        {keepCount(1), []*childState{snapshotAt(noon, withError), snapshotAt(daysAgo(30))}, nil, time.Time{}},
		"one that is being deleted does not count":             {keepCount(1), []*childState{snapshotAt(noon, deleting), snapshotAt(daysAgo(1))}, nil, time.Time{}},
		"one that is being deleted is not deleted again":       {keepCount(1), []*childState{snapshotAt(noon), snapshotAt(daysAgo(1), deleting)}, nil, time.Time{}},
		"one that is being deleted is not the newest":          {week, []*childState{snapshotAt(noon, deleting), snapshotAt(daysAgo(30))}, nil, time.Time{}},
		"one that is not ready stays for a day":                {keepCount(1), []*childState{snapshotAt(noon), snapshotAt(noon.Add(-2*time.Hour), notReady)}, nil, noon.Add(22 * time.Hour)},
		"after a day it goes if a newer one is ready":          {keepCount(9), []*childState{snapshotAt(noon), snapshotAt(daysAgo(1), notReady)}, []string{"data-1120-1200"}, time.Time{}},
		"it stays if only an older one is ready":               {keepCount(1), []*childState{snapshotAt(daysAgo(2), notReady), snapshotAt(daysAgo(3))}, nil, time.Time{}},
		"what the driver has stays if a newer one fails":       {keepCount(1), []*childState{snapshotAt(noon, withError), snapshotAt(daysAgo(2), notReady)}, nil, time.Time{}},
		"what the driver does not have goes if there is newer": {keepCount(1), []*childState{snapshotAt(noon, withError), snapshotAt(daysAgo(2), withError)}, []string{"data-1119-1200"}, time.Time{}},
		"what never was goes if it is not the only one":        {keepCount(1), []*childState{snapshotAt(daysAgo(2), notAtDriver), snapshotAt(daysAgo(3), notAtDriver), snapshotAt(daysAgo(5))}, []string{"data-1118-1200"}, time.Time{}},
		"one that can never be taken goes after a day":         {keepCount(1), []*childState{snapshotAt(daysAgo(1), notAtDriver, claimGone)}, []string{"data-1120-1200"}, time.Time{}},
		"until then it stays": {
			keepCount(1), []*childState{snapshotAt(noon.Add(-23*time.Hour), notAtDriver, claimGone), snapshotAt(daysAgo(2))}, nil, noon.Add(time.Hour),
		},
		"one that the driver may be asked for is not one of those": {
			keepCount(1), []*childState{snapshotAt(daysAgo(40), notAtDriver, claimGone, func(s *childState) { s.started = true }), snapshotAt(daysAgo(41))}, nil, time.Time{},
		},
		"one of a claim that is gone counts as it did": {keepCount(1), []*childState{snapshotAt(noon, claimGone), snapshotAt(daysAgo(1), claimGone)}, []string{"data-1120-1200"}, time.Time{}},
		"one of another claim of the name does not count, and stays": {
			keepCount(1), []*childState{snapshotAt(noon, ofSuccessor), snapshotAt(daysAgo(1), claimGone), snapshotAt(daysAgo(2), claimGone)}, []string{"data-1119-1200"}, time.Time{},
		},
		"nor does it make one go that is not ready": {keepCount(1), []*childState{snapshotAt(noon, ofSuccessor), snapshotAt(daysAgo(2), withError)}, nil, time.Time{}},
		"one of the future does not count, and stays": {
			keepCount(1), []*childState{snapshotAt(daysAgo(1)), snapshotAt(daysAgo(2)), snapshotAt(daysAgo(-15), fromFuture)}, []string{"data-1119-1200"}, time.Time{},
		},
		"nor does it make one go that is not ready, as one of the future": {week, []*childState{snapshotAt(daysAgo(2), notReady), snapshotAt(daysAgo(-15), fromFuture)}, nil, time.Time{}},
		"the only one stays, whatever it is":                              {keepCount(1), []*childState{snapshotAt(daysAgo(40), withError)}, nil, time.Time{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			slices.SortFunc(tt.snapshots, compareNewestFirst)
			gone, next := expired(tt.snapshots, tt.keep, sameClocks(noon))
			if diff := cmp.Diff(tt.want, snapshotNames(gone), cmp.Transformer("nil", func(s []string) []string { return append([]string{}, s...) })); diff != "" {
				t.Error(diff)
			}
			if !next.Equal(tt.next) {
				t.Errorf("the next goes at %s, not %s", next, tt.next)
			}
		})
	}
}

// Whatever there is, the newest that is ready stays, and so do as many ready ones
// as the count says that are young enough; doing it again removes nothing more, and
// nothing goes before it was said that something will.
func TestRetentionKeepsWhatItPromises(t *testing.T) {
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 1))
		keep := &retention{}
		if random.IntN(4) > 0 {
			keep.MaxCount = ptr.To(1 + random.Int32N(4))
		}
		if keep.MaxCount == nil || random.IntN(2) > 0 {
			keep.MaxAge = hours(1 + random.IntN(200))
		}
		var snapshots []*childState
		for range random.IntN(9) {
			when := noon.Add(-time.Duration(random.IntN(300)) * time.Hour)
			snapshots = append(snapshots, snapshotAt(when, []func(*childState){func(*childState) {}, func(*childState) {}, notReady, notAtDriver, withError, deleting}[random.IntN(6)]))
		}
		slices.SortFunc(snapshots, compareNewestFirst)
		gone, next := expired(snapshots, keep, sameClocks(noon))
		left := slices.DeleteFunc(slices.Clone(snapshots), func(s *childState) bool { return slices.Contains(gone, s) })
		if newestReady(snapshots) != newestReady(left) {
			t.Fatalf("seed %d: the newest ready one went, of %v with %+v", seed, snapshotNames(snapshots), keep)
		}
		ready := 0
		for _, s := range snapshots {
			if !s.isUsable() {
				continue
			}
			ready++
			old := keep.MaxAge != nil && noon.Sub(s.takenAt) >= keep.MaxAge.Duration
			many := keep.MaxCount != nil && ready > int(*keep.MaxCount)
			if want := ready > 1 && (old || many); want != slices.Contains(gone, s) {
				t.Fatalf("seed %d: %s goes: %v, wanted %v", seed, s.name, !want, want)
			}
		}
		if again, _ := expired(left, keep, sameClocks(noon)); len(again) > 0 {
			t.Fatalf("seed %d: the second time %v went", seed, snapshotNames(again))
		}
		just := next.Add(-time.Second)
		if next.IsZero() {
			just = noon.AddDate(10, 0, 0)
		}
		if early, _ := expired(left, keep, sameClocks(just)); len(early) > 0 {
			t.Fatalf("seed %d: %v went before %s", seed, snapshotNames(early), next)
		}
		if due, _ := expired(left, keep, sameClocks(next)); !next.IsZero() && len(due) == 0 {
			t.Fatalf("seed %d: nothing goes at %s", seed, next)
		}
	}
}

// Nothing goes by age unless both clocks agree, whichever is wrong; by count it does.
func TestNothingGoesByAgeWhileTheClocksDiffer(t *testing.T) {
	week := hours(7 * 24)
	byAge, either := &retention{MaxAge: week}, &retention{MaxAge: week, MaxCount: ptr.To[int32](2)}
	three := []*childState{snapshotAt(daysAgo(1)), snapshotAt(daysAgo(6)), snapshotAt(daysAgo(8))}
	tests := map[string]struct {
		keep      *retention
		snapshots []*childState
		at        clockReadings
		want      []string
		withheld  bool
		next      time.Time
	}{
		"clocks that agree":                {byAge, three, sameClocks(noon), []string{"data-1113-1200"}, false, daysAgo(-1)},
		"clocks that are an hour apart":    {byAge, three, clockReadings{noon, noon.Add(-maxClockSkew)}, []string{"data-1113-1200"}, false, daysAgo(-1)},
		"ours is ahead":                    {byAge, three, clockReadings{daysAgo(-15), noon}, nil, true, daysAgo(-1)},
		"ours is two hours ahead":          {byAge, []*childState{snapshotAt(noon), snapshotAt(daysAgo(7).Add(time.Hour))}, clockReadings{noon.Add(2 * time.Hour), noon}, nil, true, noon.Add(time.Hour)},
		"ours is behind":                   {byAge, three, clockReadings{daysAgo(15), noon}, nil, true, daysAgo(1)},
		"that of the API server is ahead":  {byAge, three, clockReadings{noon, daysAgo(-15)}, nil, true, daysAgo(-1)},
		"that of the API server is behind": {byAge, three, clockReadings{noon, daysAgo(15)}, nil, true, daysAgo(1)},
		"that of the API server is hidden": {byAge, three, clockReadings{own: noon}, nil, true, daysAgo(-1)},
		"nothing would go by either":       {byAge, three[:2], clockReadings{own: noon}, nil, false, daysAgo(-1)},
		"what is too many goes":            {either, three, clockReadings{daysAgo(-15), noon}, []string{"data-1113-1200"}, true, daysAgo(-1)},
		"what is not ready stays": {
			keepCount(1), []*childState{snapshotAt(noon), snapshotAt(daysAgo(1).Add(time.Hour), notReady)}, clockReadings{daysAgo(-15), noon}, nil, true, noon.Add(time.Hour),
		},
		"without retention nothing is withheld": {nil, three, clockReadings{own: noon}, nil, false, time.Time{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			gone, next := expired(tt.snapshots, tt.keep, tt.at)
			if diff := cmp.Diff(append([]string{}, tt.want...), snapshotNames(gone)); diff != "" {
				t.Error(diff)
			}
			if got := withheld(tt.snapshots, tt.keep, tt.at); got != tt.withheld {
				t.Errorf("that something is withheld is %v", got)
			}
			if !next.Equal(tt.next) {
				t.Errorf("the next goes at %s", next)
			}
		})
	}
}

// A snapshot is of the claim that its label says, unless another has had the name since
// before it was taken.
func TestWhoseASnapshotIs(t *testing.T) {
	tests := map[string]struct {
		snapshot               *childState
		change                 func(*corev1.PersistentVolumeClaim)
		cannotSucceed, another bool
	}{
		"its claim is there":                  {snapshotAt(daysAgo(1)), func(*corev1.PersistentVolumeClaim) {}, false, false},
		"its claim is gone":                   {snapshotAt(daysAgo(1)), renamed, false, false},
		"its claim went before it was taken":  {snapshotAt(daysAgo(1), notAtDriver), renamed, true, false},
		"another has the name, later":         {snapshotAt(daysAgo(3)), replaced, false, false},
		"another had the name already":        {snapshotAt(daysAgo(1)), replaced, false, true},
		"another has the name in that second": {snapshotAt(daysAgo(2)), replaced, false, true},
		"another had it, which is not ready":  {snapshotAt(daysAgo(1), notReady), replaced, false, true},
		"another has it, and it is not taken": {snapshotAt(daysAgo(1), withError), replaced, true, false},
		"nobody knows whose it is":            {snapshotAt(daysAgo(1), notAtDriver, func(s *childState) { s.target = "" }), replaced, false, false},
		"it was at the driver before":         {snapshotAt(daysAgo(1), func(s *childState) { s.targetName = "" }), replaced, false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			claim := boundClaim("data")
			tt.change(&claim)
			of := claimTarget(&claim)
			resolveTargets([]*childState{tt.snapshot}, map[string]*target{of.Name: &of})
			if tt.snapshot.cannotSucceed() != tt.cannotSucceed || tt.snapshot.ofSuccessor != tt.another || tt.snapshot.isDoubtful() != tt.another {
				t.Errorf("cannotSucceed %v, another's %v", tt.snapshot.cannotSucceed(), tt.snapshot.ofSuccessor)
			}
		})
	}
}

func renamed(c *corev1.PersistentVolumeClaim) { c.Name = "other" }
func replaced(c *corev1.PersistentVolumeClaim) {
	c.UID, c.CreationTimestamp = "heir-uid", *metaTime(daysAgo(2))
}

// What a clock that was ahead has stamped is known by that.
func TestWhatIsOfTheFuture(t *testing.T) {
	for name, tt := range map[string]struct {
		made time.Time
		at   clockReadings
		want bool
	}{
		"an object of now":                                 {noon, sameClocks(noon), false},
		"one that is a little ahead":                       {noon.Add(time.Minute), sameClocks(noon), false},
		"one of the future":                                {daysAgo(-15), sameClocks(noon), true},
		"one that is so only by a clock that is behind":    {noon, clockReadings{daysAgo(15), noon}, false},
		"one of the future, where only one clock is known": {daysAgo(-15), clockReadings{own: noon}, true},
	} {
		v := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: *metaTime(tt.made)}}
		if got := childStateOf(snapshotKind{}, v, tt.at).fromFuture; got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What a driver says about when a snapshot was taken never makes it older than
// its object or of tomorrow.
func TestWhenASnapshotWasTaken(t *testing.T) {
	made := noon.Add(-5 * time.Hour)
	for name, tt := range map[string]struct {
		says *time.Time
		want time.Time
	}{
		"a driver that says nothing":                        {nil, made},
		"a snapshot that was retried for hours":             {ptr.To(noon.Add(-time.Hour)), noon.Add(-time.Hour)},
		"a driver that does not know the time of its clone": {ptr.To(time.Unix(0, 0)), made},
		"a driver whose clock is a little ahead":            {ptr.To(noon.Add(time.Minute)), noon},
		"a driver whose clock is ahead":                     {ptr.To(noon.AddDate(1, 0, 0)), made},
	} {
		v := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: *metaTime(made)}, Status: &snapshotv1.VolumeSnapshotStatus{}}
		if tt.says != nil {
			v.Status.CreationTime = &metav1.Time{Time: *tt.says}
		}
		if got := childStateOf(snapshotKind{}, v, sameClocks(noon)).takenAt; !got.Equal(tt.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}
