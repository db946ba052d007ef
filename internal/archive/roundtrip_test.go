package archive

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	checkpoints := map[string][]content{
		"no file":                     nil,
		"a small checkpoint":          smallCheckpoint(t),
		"a file of exactly one frame": {{"a", strings.Repeat("x", defaultFrameSize)}},
		"a file of several frames":    {{"a", strings.Repeat("x", 3*defaultFrameSize+1)}, {"b/c/d", "y"}},
		"data that do not compress":   {{"a", randomPages(100)}},
		"pages over several frames": {{"checkpoint/pages-1.img",
			strings.Repeat(page(0), 200) + randomPages(99) + strings.Repeat(page(0)+page(7), 50) + strings.Repeat(page(0), 64)}},
		"only zeros":                                   {{"checkpoint/pages-1.img", strings.Repeat(page(0), 1000)}},
		"a pages file that is cut off":                 {{"checkpoint/pages-1.img", page(1) + "x"}},
		"a pagemap of a process of no use":             {{"checkpoint/pagemap-1.img", pagemapImage(t, 4)}},
		"many frames, each larger than the one before": growingPages(100),
	}
	for kind, p := range protections(t) {
		for name, contents := range checkpoints {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				checkRoundTrip(t, p, contents)
			})
		}
	}
}

// growingPages returns pages files of 1, 2 … n pages. None shares a frame with another.
func growingPages(n int) []content {
	var all []content
	for i := range n {
		all = append(all, content{fmt.Sprintf("checkpoint/pages-%d.img", i+1), strings.Repeat(page(7), i+1)})
	}
	return all
}

func checkRoundTrip(t *testing.T, p protection, contents []content) {
	t.Helper()
	archive, result := write(t, p.write, contents...)
	a := mustOpen(t, archive, p.open)
	sum := sha256.Sum256(archive)
	verification, err := a.Verify(t.Context())
	if err != nil {
		t.Fatal("verifying:", err)
	}
	if want := formatDigest(sum[:]); result.Digest != want || verification.Digest != want {
		t.Errorf("the digest is %s, Close returned %s and Verify %s", want, result.Digest, verification.Digest)
	}
	want, raw := map[string]string{}, 0
	for _, c := range contents {
		want[c.name] = c.data
		raw += len(c.data)
		got, err := a.ReadFile(t.Context(), c.name, int64(len(c.data)))
		if err != nil || string(got) != c.data {
			t.Errorf("%s: read %d bytes instead of %d, error %v", c.name, len(got), len(c.data), err)
		}
	}
	if result.Raw != int64(raw) || result.Stored != int64(len(archive)) || result.Files != len(contents) {
		t.Errorf("Close returned %+v, want %d bytes raw, %d stored, %d files", result, raw, len(archive), len(contents))
	}
	extracted, unpacked := t.TempDir(), t.TempDir()
	if err := a.Extract(t.Context(), extracted); err != nil {
		t.Fatal("extracting:", err)
	}
	if v, err := a.Unpack(t.Context(), unpacked, nil); err != nil || v.Digest != result.Digest {
		t.Fatalf("unpacking: %+v, error %v", v, err)
	}
	for how, dir := range map[string]string{"extracted": extracted, "unpacked": unpacked} {
		if diff := cmp.Diff(want, readAll(t, dir)); diff != "" {
			t.Errorf("%s (-want +got): %s", how, diff)
		}
	}
}

// readAll returns the contents of all files in a directory by name.
func readAll(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		found[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestPagesOfZerosAreCountedAndNotStored(t *testing.T) {
	t.Parallel()
	_, result := write(t, WriteOptions{}, smallCheckpoint(t)...)
	if want := (PageCount{Total: 6, Zero: 3, Stored: 3}); result.Pages != want {
		t.Errorf("pages are %+v, want %+v", result.Pages, want)
	}
	// Otherwise each of the pages that cannot be compressed would be stored.
	few, _ := write(t, WriteOptions{}, content{"checkpoint/pages-1.img", randomPages(1)})
	many, _ := write(t, WriteOptions{}, content{"checkpoint/pages-1.img", randomPages(1) + strings.Repeat(page(0), 1<<14)})
	if len(many)-len(few) > 8 {
		t.Errorf("16384 pages of zeros take %d bytes", len(many)-len(few))
	}
}

func TestReadPage(t *testing.T) {
	t.Parallel()
	process, shared := AddressSpace{ID: 1}, AddressSpace{Shared: true, ID: 5}
	tests := map[string]struct {
		space   AddressSpace
		address uint64
		want    string
		err     error
	}{
		"the first page":                    {process, 0x400000, page(1), nil},
		"a page of zeros":                   {process, 0x401000, page(0), nil},
		"a page behind a gap":               {process, 0x7ffd0000, page(0), nil},
		"a page behind zeros":               {process, 0x7ffd1000, page(2), nil},
		"the last page, of zeros":           {process, 0x7ffd2000, page(0), nil},
		"a page of shared memory":           {shared, 0x1000, page(3), nil},
		"an address before the first page":  {process, 0x3ff000, "", ErrNoPage},
		"an address in a gap":               {process, 0x402000, "", ErrNoPage},
		"an address behind the last page":   {process, 0x7ffd3000, "", ErrNoPage},
		"the highest address":               {process, 1<<64 - 4096, "", ErrNoPage},
		"another process":                   {AddressSpace{ID: 2}, 0x400000, "", ErrNoPage},
		"a process with the ID of a shmem":  {AddressSpace{ID: 5}, 0x1000, "", ErrNoPage},
		"address 0 of shared memory":        {shared, 0, "", ErrNoPage},
		"shared memory behind its last one": {shared, 0x2000, "", ErrNoPage},
	}
	for kind, p := range protections(t) {
		archive, _ := write(t, p.write, smallCheckpoint(t)...)
		a := mustOpen(t, archive, p.open)
		for name, tt := range tests {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				got := make([]byte, defaultPageSize)
				err := a.ReadPage(tt.space, tt.address, got)
				if !errors.Is(err, tt.err) || err == nil && string(got) != tt.want {
					t.Errorf("got a page of %d and the error %v, want the error %v", got[0], err, tt.err)
				}
			})
		}
	}
}

// Each page of a large memory with runs of many lengths is found by its address.
func TestReadPageOfManyRuns(t *testing.T) {
	t.Parallel()
	want, pages, mappings := map[uint64]byte{}, strings.Builder{}, []mapping(nil)
	for i := range uint64(1000) {
		address, n := 0x10000000+i<<20, i%7+1
		mappings = append(mappings, mapping{address, n, criuPresent})
		for j := range n {
			fill := byte((i*j + i%3) % 256)
			want[address+j*defaultPageSize] = fill
			pages.WriteString(page(fill))
		}
	}
	archive, _ := write(t, WriteOptions{}, content{"checkpoint/pages-9.img", pages.String()},
		content{"checkpoint/pagemap-3.img", pagemapImage(t, 9, mappings...)})
	a := mustOpen(t, archive, OpenOptions{})
	got := make([]byte, defaultPageSize)
	for _, address := range slices.Sorted(maps.Keys(want)) {
		if err := a.ReadPage(AddressSpace{ID: 3}, address, got); err != nil || string(got) != page(want[address]) {
			t.Fatalf("address %#x: got %d and the error %v, want %d", address, got[0], err, want[address])
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	key, other := testKey(t, 7), testKey(t, 8)
	identity, recipients := testAge(t)
	stranger, _ := testAge(t)
	both := WriteOptions{Key: key, Recipients: recipients}
	tests := map[string]struct {
		write   WriteOptions
		secrets Secrets
		err     string // part of it; "" for none
	}{
		"no key is needed without encryption": {WriteOptions{}, Secrets{}, ""},
		"a key is ignored without encryption": {WriteOptions{}, Secrets{Keys: []Key{*key}}, ""},
		"the key opens it":                    {WriteOptions{Key: key}, Secrets{Keys: []Key{*key}}, ""},
		"one of several keys opens it":        {WriteOptions{Key: key}, Secrets{Keys: []Key{*other, *key}}, ""},
		"an age identity opens it":            {WriteOptions{Recipients: recipients}, Secrets{Identities: []age.Identity{stranger, identity}}, ""},
		"the key opens what is for age too":   {both, Secrets{Keys: []Key{*key}}, ""},
		"age opens what is for a key too":     {both, Secrets{Identities: []age.Identity{identity}}, ""},
		"without a key it says which is needed": {both, Secrets{},
			"encrypted with key " + key.ID() + " and with the age recipients " + recipients[0].name + ", and no key was given"},
		"with a wrong key it names both": {WriteOptions{Key: key}, Secrets{Keys: []Key{*other}},
			"encrypted with key " + key.ID() + ", and not with key " + other.ID()},
		"with a wrong identity it names the recipient": {WriteOptions{Recipients: recipients}, Secrets{Identities: []age.Identity{stranger}},
			"encrypted with the age recipients " + recipients[0].name + ", and not with 1 age identities"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			archive, _ := write(t, tt.write, smallCheckpoint(t)...)
			_, err := open(archive, OpenOptions{Secrets: tt.secrets})
			if tt.err == "" && err != nil || tt.err != "" && (!errors.Is(err, ErrKey) || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got the error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	is := testHeader().Identity
	archive, _ := write(t, WriteOptions{}, smallCheckpoint(t)...)
	tests := map[string]struct {
		change func(*Identity)
		fails  bool
	}{
		"all fields are equal":             {func(*Identity) {}, false},
		"what is not expected is not read": {func(i *Identity) { *i = Identity{Namespace: i.Namespace} }, false},
		"another namespace":                {func(i *Identity) { i.Namespace = "other" }, true},
		"another pod of the same name":     {func(i *Identity) { i.PodUID = "other" }, true},
		"another pod":                      {func(i *Identity) { i.Pod = "other" }, true},
		"another container":                {func(i *Identity) { i.Container = "other" }, true},
		"an earlier run of the container":  {func(i *Identity) { i.ContainerID = "other" }, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expected := is
			tt.change(&expected)
			if _, err := open(archive, OpenOptions{Identity: expected}); errors.Is(err, ErrIdentity) != tt.fails {
				t.Errorf("got the error %v, want ErrIdentity: %v", err, tt.fails)
			}
		})
	}
}
