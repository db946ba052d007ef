package runc

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
)

// image encodes a page map as CRIU does. Entries are an address, a number of pages and
// flags.
func image(t *testing.T, entries ...[3]uint64) []byte {
	t.Helper()
	m := &pageMap{magic: []byte("CRIUmap!"), head: &pagemap.PagemapHead{PagesId: proto.Uint32(7)}}
	for _, e := range entries {
		m.entries = append(m.entries, &pagemap.PagemapEntry{Vaddr: proto.Uint64(e[0]), CompatNrPages: proto.Uint32(0),
			NrPages: proto.Uint64(e[1]), Flags: proto.Uint32(uint32(e[2]))})
	}
	text, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestMergePutsLazyPagesBetweenThoseOfTheImage(t *testing.T) {
	const a, b, c = 0x10000, 0x20000, 0x40000
	page := int64(pageSize)
	copied := &memoryCopy{ranges: map[int][]copiedRange{3: {
		{start: c, end: c + 2*pageSize, offset: 5 * page},
		{start: b, end: b + 2*pageSize, offset: 0},
		{start: b + 2*pageSize, end: b + 4*pageSize, offset: 2 * page},
	}}}
	copied.sort()
	m, err := readPageMap(image(t, [3]uint64{a, 2, pageInImage}, [3]uint64{b, 3, pageIsLazy}, [3]uint64{b + 3*pageSize, 1, pageInImage},
		[3]uint64{c + pageSize, 1, pageIsLazy}))
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.merge(copied, 3, "pages-7.img", "copied")
	if err != nil {
		t.Fatal(err)
	}
	want := []part{
		{Path: "pages-7.img", Offset: 0, Length: 2 * page},
		{Path: "copied", Offset: 0, Length: 3 * page},
		{Path: "pages-7.img", Offset: 2 * page, Length: page},
		{Path: "copied", Offset: 6 * page, Length: page},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, entry := range m.entries {
		if entry.GetFlags()&pageInImage == 0 {
			t.Errorf("the page map says that the pages at %#x are not in the image", entry.GetVaddr())
		}
	}
}

func TestMergeFails(t *testing.T) {
	copied := &memoryCopy{ranges: map[int][]copiedRange{1: {{start: 0x10000, end: 0x10000 + 2*pageSize}}}}
	tests := map[string]struct {
		process int
		entry   [3]uint64
	}{
		"a page that was not copied":            {1, [3]uint64{0x10000, 3, pageIsLazy}},
		"a process that was not copied":         {2, [3]uint64{0x10000, 1, pageIsLazy}},
		"a page of another checkpoint":          {1, [3]uint64{0x10000, 1, pageInParent}},
		"a page that is neither there nor lazy": {1, [3]uint64{0x10000, 1, 0}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := readPageMap(image(t, tt.entry))
			if err != nil {
				t.Fatal(err)
			}
			if parts, err := m.merge(copied, tt.process, "pages-7.img", "copied"); err == nil {
				t.Errorf("merged to %v", parts)
			}
		})
	}
}

func TestPageMapIsWrittenAsItWasRead(t *testing.T) {
	text := image(t, [3]uint64{0x10000, 2, pageInImage}, [3]uint64{0x20000, 1 << 33, pageIsLazy | pageInImage})
	m, err := readPageMap(text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.encode()
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("%x became %x, %v", text, again, err)
	}
	if m.pagesImage() != "pages-7.img" {
		t.Errorf("the pages are in %s", m.pagesImage())
	}
}

func FuzzReadPageMap(f *testing.F) {
	f.Add([]byte("CRIUmap!"))
	f.Add(binary.LittleEndian.AppendUint32([]byte("CRIUmap!"), 1<<31))
	f.Fuzz(func(_ *testing.T, text []byte) {
		if m, err := readPageMap(text); err == nil {
			_, _ = m.merge(&memoryCopy{}, 1, "pages", "copied")
		}
	})
}

// The copy is compared with the memory itself: of this process.
func TestCopyReadsTheMemory(t *testing.T) {
	m, err := newMemoryCopy(copiedFile(t.TempDir()), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	})
	a, contents := mapPages(t, 600)
	p, err := openProcess(m, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.number, p.areas = 1, []area{a}
	if err := p.run(false); err != nil {
		t.Fatal(err)
	}
	m.sort()
	parts, err := m.parts(1, a.start, a.start+300*pageSize, "copied")
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, part := range parts {
		data := make([]byte, part.Length)
		if _, err := m.file.ReadAt(data, part.Offset); err != nil {
			t.Fatal(err)
		}
		got = append(got, data...)
	}
	if len(parts) != 1 {
		t.Errorf("a range of addresses that was copied in pieces has %d parts", len(parts))
	}
	if !bytes.Equal(got, contents[:300*pageSize]) {
		t.Error("the copy differs from the memory")
	}
	if _, err := m.parts(1, a.start, a.end, "copied"); err == nil {
		t.Error("pages that were never touched are in the copy")
	}
}
