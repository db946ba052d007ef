package schedule

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
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
		"the only one stays, whatever it is":                   {count(1), []*shot{shotAt(days(40), failing)}, nil, time.Time{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			slices.SortFunc(tt.shots, newestFirst)
			gone, next := expired(tt.shots, tt.keep, noon)
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
		gone, next := expired(shots, keep, noon)
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
		if again, _ := expired(left, keep, noon); len(again) > 0 {
			t.Fatalf("seed %d: the second time %v went", seed, names(again))
		}
		just := next.Add(-time.Second)
		if next.IsZero() {
			just = noon.AddDate(10, 0, 0)
		}
		if early, _ := expired(left, keep, just); len(early) > 0 {
			t.Fatalf("seed %d: %v went before %s", seed, names(early), next)
		}
		if due, _ := expired(left, keep, next); !next.IsZero() && len(due) == 0 {
			t.Fatalf("seed %d: nothing goes at %s", seed, next)
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
		"a driver whose clock is ahead":                     {ptr.To(noon.AddDate(1, 0, 0)), noon},
	} {
		v := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: *stamped(made)}, Status: &snapshotv1.VolumeSnapshotStatus{}}
		if tt.says != nil {
			v.Status.CreationTime = &metav1.Time{Time: *tt.says}
		}
		if got := shotOf(v, noon).taken; !got.Equal(tt.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}
