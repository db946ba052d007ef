package archive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFilesThatAreNotStored(t *testing.T) {
	t.Parallel()
	file := func(name, data string) File {
		return File{Name: name, Size: int64(len(data)), Reader: strings.NewReader(data)}
	}
	pages := file("checkpoint/pages-1.img", page(1)+page(2))
	maps := func(mappings ...mapping) File {
		return file("checkpoint/pagemap-1.img", pagemapImage(t, 1, mappings...))
	}
	tests := map[string]struct {
		files []File
		err   string
	}{
		"a file that became shorter":    {[]File{{Name: "a", Size: 5, Reader: strings.NewReader("1234")}}, `storing "a": it has 4 bytes, and 5 were announced`},
		"a file that became longer":     {[]File{{Name: "a", Size: 5, Reader: strings.NewReader("123456")}}, "more than the 5 bytes that were announced"},
		"pages that became fewer":       {[]File{{Name: "checkpoint/pages-1.img", Size: 8192, Reader: strings.NewReader(page(1))}}, "it has 4096 bytes, and 8192 were announced"},
		"a link":                        {[]File{{Name: "a", Mode: fs.ModeSymlink, Reader: strings.NewReader("")}}, "no regular file"},
		"a name with ..":                {[]File{file("../a", "")}, "must be a relative path"},
		"a name twice":                  {[]File{file("a", ""), file("a", "")}, "is there twice"},
		"an incremental dump":           {[]File{maps(mapping{0x1000, 1, criuInParent})}, "parent checkpoint"},
		"a lazy dump without its pages": {[]File{maps(mapping{0x1000, 1, criuLazy})}, "was not completed"},
		"mappings out of order":         {[]File{maps(mapping{0x2000, 1, criuPresent}, mapping{0x1000, 1, criuPresent})}, "before the end of the previous one"},
		"mappings that overlap":         {[]File{maps(mapping{0x1000, 2, criuPresent}, mapping{0x2000, 1, criuPresent})}, "before the end of the previous one"},
		"an address within a page":      {[]File{maps(mapping{0x1001, 1, criuPresent})}, "not a multiple of 4096"},
		"a pagemap of other magic":      {[]File{file("checkpoint/pagemap-1.img", "12345678")}, "magic numbers"},
		"a pagemap that is cut off":     {[]File{file("checkpoint/pagemap-1.img", pagemapImage(t, 1, mapping{0x1000, 1, criuPresent})[:25])}, "unexpected EOF"},
		"more pages than the file has":  {[]File{pages, maps(mapping{0x1000, 3, criuPresent})}, "describes 3 pages of 4096 bytes, but checkpoint/pages-1.img has 8192 bytes: the dump is incomplete"},
		"pages without their file":      {[]File{maps(mapping{0x1000, 3, criuPresent})}, "there is no checkpoint/pages-1.img"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, err := NewWriter(io.Discard, testHeader(), WriteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Abort()
			for _, f := range tt.files {
				if err = w.Add(t.Context(), f); err != nil {
					break
				}
			}
			_, closeErr := w.Close()
			if closeErr == nil || !strings.Contains(closeErr.Error(), tt.err) || err != nil && !errors.Is(closeErr, err) {
				t.Errorf("Add returned %v and Close %v, want %q", err, closeErr, tt.err)
			}
		})
	}
}

// Versions of CRIU differ in how they say how many pages there are, and which.
func TestPagemapsOfOldAndNewVersions(t *testing.T) {
	t.Parallel()
	old := &pagemap.PagemapEntry{Vaddr: proto.Uint64(0x1000), CompatNrPages: proto.Uint32(2)}
	future := &pagemap.PagemapEntry{Vaddr: proto.Uint64(0x1000), CompatNrPages: proto.Uint32(2)}
	future.ProtoReflect().SetUnknown([]byte{0x50, 1}) // field 10, varint 1
	flag := &pagemap.PagemapEntry{Vaddr: proto.Uint64(0x1000), CompatNrPages: proto.Uint32(2), Flags: proto.Uint32(criuPresent | 8)}
	large := &pagemap.PagemapEntry{Vaddr: proto.Uint64(0x1000), CompatNrPages: proto.Uint32(1), NrPages: proto.Uint64(2), Flags: proto.Uint32(criuPresent)}
	tests := map[string]struct {
		entry  *pagemap.PagemapEntry
		mapped bool
	}{
		"without flags": {old, true}, "with 64 bits for the pages": {large, true},
		"with a field that is not known": {future, false}, "with a flag that is not known": {flag, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			image := appendMessage(t, []byte(pagemapImage(t, 1)), tt.entry)
			archive, _ := write(t, WriteOptions{}, content{"checkpoint/pages-1.img", page(1) + page(2)},
				content{"checkpoint/pagemap-1.img", string(image)})
			if err := check(t, archive, OpenOptions{}); err != nil {
				t.Error("verifying:", err)
			}
			got := make([]byte, defaultPageSize)
			err := mustOpen(t, archive, OpenOptions{}).ReadPage(AddressSpace{ID: 1}, 0x2000, got)
			if tt.mapped && (err != nil || string(got) != page(2)) || !tt.mapped && !errors.Is(err, ErrNoPage) {
				t.Errorf("the second page is %d, error %v; want it to be readable: %v", got[0], err, tt.mapped)
			}
		})
	}
}

func TestWriterStopsWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "checkpoint/pages-1.img"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			w, err := NewWriter(io.Discard, testHeader(), WriteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Abort()
			source := readerFunc(func(b []byte) (int, error) {
				cancel()
				return len(b), nil
			})
			if err := w.Add(ctx, File{Name: name, Size: 1 << 40, Reader: source}); !errors.Is(err, context.Canceled) {
				t.Errorf("Add: error %v", err)
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestParseKey(t *testing.T) {
	t.Parallel()
	raw := string(testKey(t, 7).secret[:])
	tests := map[string]struct{ data, err string }{
		"raw bytes":                          {raw, ""},
		"hexadecimal digits with a line end": {"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n", ""},
		"base64":                             {"ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=\n", ""},
		"nothing":                            {"", "this is no key"},
		"too few bytes":                      {raw[1:], "this is no key"},
		"a password":                         {"correct horse battery staple", "this is no key"},
		"a password of the right length":     {"correct horse battery staple 1234", "this is no key"},
		"32 characters":                      {"0123456789abcdef0123456789abcdef", "can be guessed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, err := ParseKey([]byte(tt.data))
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if err == nil && len(key.ID()) != 16 {
				t.Errorf("the ID is %q", key.ID())
			}
		})
	}
}
