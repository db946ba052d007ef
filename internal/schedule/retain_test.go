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

// days is a time so many days before noon.
func days(n int) time.Time { return noon.AddDate(0, 0, -n) }

func count(n int32) *v1alpha1.Retention { return &v1alpha1.Retention{MaxCount: &n} }

func TestExpired(t *testing.T) {
	week := &v1alpha1.Retention{MaxAge: hours(7 * 24)}
	tests := map[string]struct {
		keep  *v1alpha1.Retention
		shots []*shot
		want  []string
		next  time.Time
	}{
		"without retention all stay": {nil, []*shot{shotAt(days(1)), shotAt(days(400)), shotAt(days(401), failing)}, nil, time.Time{}},
		"the oldest beyond the count go": {
			count(2), []*shot{shotAt(days(1)), shotAt(days(2)), shotAt(days(3)), shotAt(days(4))}, []string{"data-1118-1200", "data-1117-1200"}, time.Time{},
		},
		"those beyond the age go":          {week, []*shot{shotAt(days(6)), shotAt(days(7)), shotAt(days(8))}, []string{"data-1114-1200", "data-1113-1200"}, time.Time{}},
		"the next goes when it gets there": {week, []*shot{shotAt(days(1)), shotAt(days(6))}, nil, noon.Add(24 * time.Hour)},
		"either is enough": {
			&v1alpha1.Retention{MaxCount: ptr.To[int32](2), MaxAge: hours(24)}, []*shot{shotAt(noon), shotAt(days(3)), shotAt(days(4))},
			[]string{"data-1118-1200", "data-1117-1200"}, time.Time{},
		},
		"the newest stays, however old":                        {week, []*shot{shotAt(days(20)), shotAt(days(21))}, []string{"data-1031-1200"}, time.Time{}},
		"one that is not ready does not count":                 {count(1), []*shot{shotAt(noon, unready), shotAt(days(1))}, nil, time.Time{}},
		"one that fails does not count":                        {count(1), []*shot{shotAt(noon, failing), shotAt(days(30))}, nil, time.Time{}},
		"one that is being deleted does not count":             {count(1), []*shot{shotAt(noon, deleting), shotAt(days(1))}, nil, time.Time{}},
		"one that is being deleted is not deleted again":       {count(1), []*shot{shotAt(noon), shotAt(days(1), deleting)}, nil, time.Time{}},
		"one that is being deleted is not the newest":          {week, []*shot{shotAt(noon, deleting), shotAt(days(30))}, nil, time.Time{}},
		"one that is not ready stays for a day":                {count(1), []*shot{shotAt(noon), shotAt(noon.Add(-2*time.Hour), unready)}, nil, noon.Add(22 * time.Hour)},
		"after a day it goes if a newer one is ready":          {count(9), []*shot{shotAt(noon), shotAt(days(1), unready)}, []string{"data-1120-1200"}, time.Time{}},
		"it stays if only an older one is ready":               {count(1), []*shot{shotAt(days(2), unready), shotAt(days(3))}, nil, time.Time{}},
		"what the driver has stays if a newer one fails":       {count(1), []*shot{shotAt(noon, failing), shotAt(days(2), unready)}, nil, time.Time{}},
		"what the driver does not have goes if there is newer": {count(1), []*shot{shotAt(noon, failing), shotAt(days(2), failing)}, []string{"data-1119-1200"}, time.Time{}},
		"what never was goes if it is not the only one":        {count(1), []*shot{shotAt(days(2), uncut), shotAt(days(3), uncut), shotAt(days(5))}, []string{"data-1118-1200"}, time.Time{}},
		"one that can never be taken goes after a day":         {count(1), []*shot{shotAt(days(1), uncut, claimGone)}, []string{"data-1120-1200"}, time.Time{}},
		"until then it stays": {
			count(1), []*shot{shotAt(noon.Add(-23*time.Hour), uncut, claimGone), shotAt(days(2))}, nil, noon.Add(time.Hour),
		},
		"one that the driver may be asked for is not one of those": {
			count(1), []*shot{shotAt(days(40), uncut, claimGone, func(s *shot) { s.bound = true }), shotAt(days(41))}, nil, time.Time{},
		},
		"one of a claim that is gone counts as it did": {count(1), []*shot{shotAt(noon, claimGone), shotAt(days(1), claimGone)}, []string{"data-1120-1200"}, time.Time{}},
		"one of another claim of the name does not count, and stays": {
			count(1), []*shot{shotAt(noon, successors), shotAt(days(1), claimGone), shotAt(days(2), claimGone)}, []string{"data-1119-1200"}, time.Time{},
		},
		"nor does it make one go that is not ready": {count(1), []*shot{shotAt(noon, successors), shotAt(days(2), failing)}, nil, time.Time{}},
		"one of the future does not count, and stays": {
			count(1), []*shot{shotAt(days(1)), shotAt(days(2)), shotAt(days(-15), ahead)}, []string{"data-1119-1200"}, time.Time{},
		},
		"nor does it make one go that is not ready, as one of the future": {week, []*shot{shotAt(days(2), unready), shotAt(days(-15), ahead)}, nil, time.Time{}},
		"the only one stays, whatever it is":                              {count(1), []*shot{shotAt(days(40), failing)}, nil, time.Time{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			slices.SortFunc(tt.shots, newestFirst)
			gone, next := expired(tt.shots, tt.keep, agreed(noon))
			if diff := cmp.Diff(tt.want, names(gone), cmp.Transformer("nil", func(s []string) []string { return append([]string{}, s...) })); diff != "" {
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
		keep := &v1alpha1.Retention{}
		if random.IntN(4) > 0 {
			keep.MaxCount = ptr.To(1 + random.Int32N(4))
		}
		if keep.MaxCount == nil || random.IntN(2) > 0 {
			keep.MaxAge = hours(1 + random.IntN(200))
		}
		var shots []*shot
		for range random.IntN(9) {
			when := noon.Add(-time.Duration(random.IntN(300)) * time.Hour)
			shots = append(shots, shotAt(when, []func(*shot){func(*shot) {}, func(*shot) {}, unready, uncut, failing, deleting}[random.IntN(6)]))
		}
		slices.SortFunc(shots, newestFirst)
		gone, next := expired(shots, keep, agreed(noon))
		left := slices.DeleteFunc(slices.Clone(shots), func(s *shot) bool { return slices.Contains(gone, s) })
		if newestReady(shots) != newestReady(left) {
			t.Fatalf("seed %d: the newest ready one went, of %v with %+v", seed, names(shots), keep)
		}
		ready := 0
		for _, s := range shots {
			if !s.good() {
				continue
			}
			ready++
			old := keep.MaxAge != nil && noon.Sub(s.taken) >= keep.MaxAge.Duration
			many := keep.MaxCount != nil && ready > int(*keep.MaxCount)
			if want := ready > 1 && (old || many); want != slices.Contains(gone, s) {
				t.Fatalf("seed %d: %s goes: %v, wanted %v", seed, s.name, !want, want)
			}
		}
		if again, _ := expired(left, keep, agreed(noon)); len(again) > 0 {
			t.Fatalf("seed %d: the second time %v went", seed, names(again))
		}
		just := next.Add(-time.Second)
		if next.IsZero() {
			just = noon.AddDate(10, 0, 0)
		}
		if early, _ := expired(left, keep, agreed(just)); len(early) > 0 {
			t.Fatalf("seed %d: %v went before %s", seed, names(early), next)
		}
		if due, _ := expired(left, keep, agreed(next)); !next.IsZero() && len(due) == 0 {
			t.Fatalf("seed %d: nothing goes at %s", seed, next)
		}
	}
}

// Nothing goes by age unless both clocks agree, whichever is wrong; by count it does.
func TestNothingGoesByAgeWhileTheClocksDiffer(t *testing.T) {
	week := hours(7 * 24)
	byAge, either := &v1alpha1.Retention{MaxAge: week}, &v1alpha1.Retention{MaxAge: week, MaxCount: ptr.To[int32](2)}
	three := []*shot{shotAt(days(1)), shotAt(days(6)), shotAt(days(8))}
	tests := map[string]struct {
		keep     *v1alpha1.Retention
		shots    []*shot
		at       clocks
		want     []string
		withheld bool
		next     time.Time
	}{
		"clocks that agree":                {byAge, three, agreed(noon), []string{"data-1113-1200"}, false, days(-1)},
		"clocks that are an hour apart":    {byAge, three, clocks{noon, noon.Add(-skew)}, []string{"data-1113-1200"}, false, days(-1)},
		"ours is ahead":                    {byAge, three, clocks{days(-15), noon}, nil, true, days(-1)},
		"ours is two hours ahead":          {byAge, []*shot{shotAt(noon), shotAt(days(7).Add(time.Hour))}, clocks{noon.Add(2 * time.Hour), noon}, nil, true, noon.Add(time.Hour)},
		"ours is behind":                   {byAge, three, clocks{days(15), noon}, nil, true, days(1)},
		"that of the API server is ahead":  {byAge, three, clocks{noon, days(-15)}, nil, true, days(-1)},
		"that of the API server is behind": {byAge, three, clocks{noon, days(15)}, nil, true, days(1)},
		"that of the API server is hidden": {byAge, three, clocks{own: noon}, nil, true, days(-1)},
		"nothing would go by either":       {byAge, three[:2], clocks{own: noon}, nil, false, days(-1)},
		"what is too many goes":            {either, three, clocks{days(-15), noon}, []string{"data-1113-1200"}, true, days(-1)},
		"what is not ready stays": {
			count(1), []*shot{shotAt(noon), shotAt(days(1).Add(time.Hour), unready)}, clocks{days(-15), noon}, nil, true, noon.Add(time.Hour),
		},
		"without retention nothing is withheld": {nil, three, clocks{own: noon}, nil, false, time.Time{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			gone, next := expired(tt.shots, tt.keep, tt.at)
			if diff := cmp.Diff(append([]string{}, tt.want...), names(gone)); diff != "" {
				t.Error(diff)
			}
			if got := withheld(tt.shots, tt.keep, tt.at); got != tt.withheld {
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
		shot              *shot
		change            func(*corev1.PersistentVolumeClaim)
		hopeless, another bool
	}{
		"its claim is there":                  {shotAt(days(1)), func(*corev1.PersistentVolumeClaim) {}, false, false},
		"its claim is gone":                   {shotAt(days(1)), renamed, false, false},
		"its claim went before it was taken":  {shotAt(days(1), uncut), renamed, true, false},
		"another has the name, later":         {shotAt(days(3)), replaced, false, false},
		"another had the name already":        {shotAt(days(1)), replaced, false, true},
		"another has the name in that second": {shotAt(days(2)), replaced, false, true},
		"another had it, which is not ready":  {shotAt(days(1), unready), replaced, false, true},
		"another has it, and it is not taken": {shotAt(days(1), failing), replaced, true, false},
		"nobody knows whose it is":            {shotAt(days(1), uncut, func(s *shot) { s.claim = "" }), replaced, false, false},
		"it was at the driver before":         {shotAt(days(1), func(s *shot) { s.claimName = "" }), replaced, false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			claim := bound("data")
			tt.change(&claim)
			lookUpClaims([]*shot{tt.shot}, map[string]*corev1.PersistentVolumeClaim{claim.Name: &claim})
			if tt.shot.hopeless() != tt.hopeless || tt.shot.another != tt.another || tt.shot.doubtful() != tt.another {
				t.Errorf("hopeless %v, another's %v", tt.shot.hopeless(), tt.shot.another)
			}
		})
	}
}

func renamed(c *corev1.PersistentVolumeClaim) { c.Name = "other" }
func replaced(c *corev1.PersistentVolumeClaim) {
	c.UID, c.CreationTimestamp = "heir-uid", *stamped(days(2))
}

// What a clock that was ahead has stamped is known by that.
func TestWhatIsOfTheFuture(t *testing.T) {
	for name, tt := range map[string]struct {
		made time.Time
		at   clocks
		want bool
	}{
		"an object of now":                                 {noon, agreed(noon), false},
		"one that is a little ahead":                       {noon.Add(time.Minute), agreed(noon), false},
		"one of the future":                                {days(-15), agreed(noon), true},
		"one that is so only by a clock that is behind":    {noon, clocks{days(15), noon}, false},
		"one of the future, where only one clock is known": {days(-15), clocks{own: noon}, true},
	} {
		v := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: *stamped(tt.made)}}
		if got := shotOf(v, tt.at).ahead; got != tt.want {
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
		v := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: *stamped(made)}, Status: &snapshotv1.VolumeSnapshotStatus{}}
		if tt.says != nil {
			v.Status.CreationTime = &metav1.Time{Time: *tt.says}
		}
		if got := shotOf(v, agreed(noon)).taken; !got.Equal(tt.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}
