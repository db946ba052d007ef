package archive

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// A forgery is an archive with correct checksums, whose other parts a test changes.
type forgery struct {
	header   encodedHeader
	files    []*indexFile
	frames   []forgedFrame
	memory   []byte // the section
	more     []byte // further sections
	index    []byte // in place of all sections
	change   func(*trailer)
	stored   []byte // in place of the compressed index
	reserved byte   // of the prologue
	version  uint16
}

type forgedFrame struct {
	codec         byte
	stored        []byte
	plain         uint64
	claimedStored uint64 // 0 for the real length
}

// newForgery returns an archive with two files: one of 5 bytes, and one of three pages, the
// second of which is zeros.
func newForgery(t testing.TB) *forgery {
	t.Helper()
	pages := runEncoder{}
	pages.append(runStored, 1)
	pages.append(runZero, 1)
	pages.append(runStored, 1)
	m := &memoryMap{space: AddressSpace{ID: 1}, pagesID: 1, runs: runEncoder{gaps: true}}
	m.runs.skip(16)
	m.runs.append(runStored, 3)
	f := &forgery{
		header: encodedHeader{
			Compression: "zstd", Protection: protectionChecksum, Salt: make([]byte, saltSize),
			PageSize: defaultPageSize, FrameSize: defaultFrameSize,
		},
		files: []*indexFile{
			{name: "a", mode: 0o600, size: 5, frames: 1},
			{name: "checkpoint/pages-1.img", kind: filePages, mode: 0o600, size: 3 * defaultPageSize, frames: 1, runs: pages.bytes()},
			{name: "checkpoint/pagemap-1.img", mode: 0o600, size: 0, frames: 0},
		},
		frames: []forgedFrame{
			{codec: codecNone, stored: []byte("hello"), plain: 5},
			{codec: codecNone, stored: []byte(page(1) + page(2)), plain: 2 * defaultPageSize},
		},
		version: formatVersion,
	}
	image := pagemapImage(t, 1, mapping{16 * defaultPageSize, 3, criuPresent})
	f.files[2].size, f.files[2].frames = int64(len(image)), 1
	f.frames = append(f.frames, forgedFrame{codec: codecNone, stored: []byte(image), plain: uint64(len(image))})
	f.memory = appendMemory([]byte{1}, m, 2)
	return f
}

func (f *forgery) encode(t testing.TB) []byte {
	t.Helper()
	text, err := json.Marshal(f.header)
	if err != nil {
		t.Fatal(err)
	}
	return f.encodeWith(t, text)
}

func (f *forgery) encodeWith(t testing.TB, header []byte) []byte {
	t.Helper()
	sealer := checksums{salt: f.header.Salt}
	out := append(encodePrologue(len(header)), header...)
	binary.LittleEndian.PutUint16(out[8:], f.version)
	out[10] = f.reserved
	digest := sealer.headerDigest(out)
	out = append(out, digest[:]...)
	table := frameTable{}
	end := trailer{frames: uint64(len(f.frames))}
	for i, forged := range f.frames {
		l := label{kind: sealedFrame, codec: forged.codec, plain: uint32(forged.plain), number: uint64(i)}
		_, tag := sealer.seal(l, nil, forged.stored)
		claimed := forged.claimedStored
		if claimed == 0 {
			claimed = uint64(len(forged.stored))
		}
		table.sizes = append(table.sizes, forged.codec)
		table.sizes = binary.AppendUvarint(binary.AppendUvarint(table.sizes, claimed), forged.plain)
		table.tags = append(table.tags, tag[:]...)
		out = append(out, forged.stored...)
		end.framesSize += uint64(len(forged.stored))
	}
	index := f.index
	if index == nil {
		index = appendSection(nil, sectionFiles, (&indexBuilder{files: f.files}).encodeFiles())
		index = appendSection(index, sectionFrames, table.sizes, table.tags)
		index = append(appendSection(index, sectionMemory, f.memory), f.more...)
	}
	return f.finish(t, out, digest, index, end)
}

func (f *forgery) finish(t testing.TB, out []byte, header [digestSize]byte, index []byte, end trailer) []byte {
	t.Helper()
	sealer := checksums{salt: f.header.Salt}
	stored := f.stored
	if stored == nil {
		stored = compressed(t, index)
	}
	end.indexPlain, end.indexStored = uint64(len(index)), uint64(len(stored))
	if f.change != nil {
		f.change(&end)
	}
	l := label{kind: sealedIndex, codec: codecZstd, plain: uint32(end.indexPlain), number: end.frames}
	_, end.indexTag = sealer.seal(l, nil, stored)
	end.digest = sealer.trailerDigest(header, end.fields())
	return append(append(out, stored...), end.encode()...)
}

func compressed(t testing.TB, data []byte) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll(data, nil)
}

// run encodes a run.
func encodeRun(kind byte, pages uint64, more ...uint64) []byte {
	b := binary.AppendUvarint(nil, pages<<runKindBits|uint64(kind))
	for _, n := range more {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// Whoever makes these archives knows the format: all checksums are right.
var hostile = map[string]struct {
	change func(*forgery)
	err    error
}{
	"a newer version of the format":       {func(f *forgery) { f.version = 2 }, ErrUnsupported},
	"reserved bytes that are used":        {func(f *forgery) { f.reserved = 1 }, ErrFormat},
	"a feature that must be understood":   {func(f *forgery) { f.header.MustUnderstand = []string{"magic"} }, ErrUnsupported},
	"another compression":                 {func(f *forgery) { f.header.Compression = "lz4" }, ErrUnsupported},
	"another protection":                  {func(f *forgery) { f.header.Protection = "none" }, ErrUnsupported},
	"encryption without a key":            {func(f *forgery) { f.header.Protection = protectionEncryption }, ErrFormat},
	"keys without encryption":             {func(f *forgery) { f.header.Keys = []wrappedKey{{Type: "key"}} }, ErrFormat},
	"a short salt":                        {func(f *forgery) { f.header.Salt = f.header.Salt[1:] }, ErrFormat},
	"a page size that no kernel has":      {func(f *forgery) { f.header.PageSize = 4097 }, ErrFormat},
	"a page size of 0":                    {func(f *forgery) { f.header.PageSize = 0 }, ErrFormat},
	"a frame size that is no page":        {func(f *forgery) { f.header.FrameSize = defaultPageSize + 1 }, ErrFormat},
	"a huge frame size":                   {func(f *forgery) { f.header.FrameSize = 1 << 30 }, ErrFormat},
	"an identity that moves the cursor":   {func(f *forgery) { f.header.Identity.Pod = "\x1b[2J" }, ErrFormat},
	"a long identity":                     {func(f *forgery) { f.header.Identity.Pod = strings.Repeat("x", 254) }, ErrFormat},
	"metadata that move the cursor":       {func(f *forgery) { f.header.Metadata = map[string]string{"a": "\r"} }, ErrFormat},
	"metadata without a name":             {func(f *forgery) { f.header.Metadata = map[string]string{"": "a"} }, ErrFormat},
	"a name with ..":                      {func(f *forgery) { f.files[0].name = "a/../../b" }, ErrFormat},
	"a name that is ..":                   {func(f *forgery) { f.files[0].name = ".." }, ErrFormat},
	"an absolute name":                    {func(f *forgery) { f.files[0].name = "/etc/passwd" }, ErrFormat},
	"an empty name":                       {func(f *forgery) { f.files[0].name = "" }, ErrFormat},
	"a name that is .":                    {func(f *forgery) { f.files[0].name = "." }, ErrFormat},
	"a name with an empty element":        {func(f *forgery) { f.files[0].name = "a//b" }, ErrFormat},
	"a name that ends as a directory":     {func(f *forgery) { f.files[0].name = "a/" }, ErrFormat},
	"a name with a backslash":             {func(f *forgery) { f.files[0].name = `..\b` }, ErrFormat},
	"a name with a NUL":                   {func(f *forgery) { f.files[0].name = "a\x00b" }, ErrFormat},
	"a name with a line end":              {func(f *forgery) { f.files[0].name = "a\nb" }, ErrFormat},
	"a name that is written backwards":    {func(f *forgery) { f.files[0].name = "a\u202eb" }, ErrFormat},
	"a name that is no UTF-8":             {func(f *forgery) { f.files[0].name = "a\xffb" }, ErrFormat},
	"a long name":                         {func(f *forgery) { f.files[0].name = strings.Repeat("x", maxName+1) }, ErrFormat},
	"a deep name":                         {func(f *forgery) { f.files[0].name = strings.Repeat("x/", 16) + "x" }, ErrFormat},
	"a name twice":                        {func(f *forgery) { f.files[0].name = f.files[1].name }, ErrFormat},
	"a file inside of a file":             {func(f *forgery) { f.files[0].name = "checkpoint" }, ErrFormat},
	"a symbolic link":                     {func(f *forgery) { f.files[0].mode = 0o120777 }, ErrFormat},
	"a device":                            {func(f *forgery) { f.files[0].mode = 0o060600 }, ErrFormat},
	"a set-UID file":                      {func(f *forgery) { f.files[0].mode = 0o4755 }, ErrFormat},
	"a kind of file from the future":      {func(f *forgery) { f.files[0].kind = 9 }, ErrUnsupported},
	"a file of more than all permitted":   {func(f *forgery) { f.files[0].size = 1 << 62 }, ErrLimit},
	"a file that is longer than frames":   {func(f *forgery) { f.files[0].size = 6 }, ErrFormat},
	"a file that is shorter than frames":  {func(f *forgery) { f.files[0].size = 4 }, ErrFormat},
	"a file with a frame of the next":     {func(f *forgery) { f.files[0].frames, f.files[1].frames = 2, 0 }, ErrFormat},
	"more frames than there are":          {func(f *forgery) { f.files[0].frames = 1 << 40 }, ErrFormat},
	"fewer frames than there are":         {func(f *forgery) { f.files[2].frames = 0; f.files[2].size = 0 }, ErrFormat},
	"a frame that reaches into the next":  {func(f *forgery) { f.frames[0].claimedStored = 6 }, ErrFormat},
	"a frame that reaches into the index": {func(f *forgery) { f.frames[2].claimedStored = 99 }, ErrFormat},
	"a frame of no bytes":                 {func(f *forgery) { f.frames[0] = forgedFrame{} }, ErrFormat},
	"a frame larger than the frame size":  {func(f *forgery) { f.header.FrameSize = defaultPageSize }, ErrFormat},
	"a frame of half a page":              {func(f *forgery) { f.frames[1].plain = defaultPageSize * 3 / 2 }, ErrFormat},
	"a codec from the future":             {func(f *forgery) { f.frames[0].codec = 7 }, ErrUnsupported},
	"a frame that is no zstd":             {func(f *forgery) { f.frames[0].codec = codecZstd }, ErrFormat},
	"runs of fewer pages than the file":   {func(f *forgery) { f.files[1].runs = encodeRun(runStored, 2) }, ErrFormat},
	"runs of more pages than the file":    {func(f *forgery) { f.files[1].runs = encodeRun(runZero, 1<<50) }, ErrFormat},
	"a run of no pages":                   {func(f *forgery) { f.files[1].runs = append(encodeRun(runZero, 0), f.files[1].runs...) }, ErrFormat},
	"a run that is cut off":               {func(f *forgery) { f.files[1].runs = []byte{0x80} }, ErrFormat},
	"runs whose sum overflows": {func(f *forgery) {
		f.files[1].runs = join(encodeRun(runZero, 1<<60), encodeRun(runZero, 1<<60), encodeRun(runZero, 1<<60), encodeRun(runZero, 1<<60),
			encodeRun(runZero, 1<<60), encodeRun(runZero, 1<<60), encodeRun(runZero, 1<<60), encodeRun(runZero, 1<<60))
	}, ErrFormat},
	"a kind of run from the future":         {func(f *forgery) { f.files[1].runs = encodeRun(3, 3) }, ErrUnsupported},
	"a predecessor that is not there":       {func(f *forgery) { f.predecessor(5) }, ErrFormat},
	"memory of a file that is not there":    {func(f *forgery) { f.memory = []byte{1, 0, 1, 9, 0} }, ErrFormat},
	"memory of a file without pages":        {func(f *forgery) { f.memory = append([]byte{1, 0, 1, 1, 2, 16}, encodeRun(runStored, 3)...) }, ErrFormat},
	"memory without a pages file":           {func(f *forgery) { f.memory = append([]byte{1, 0, 1, 0, 2, 16}, encodeRun(runStored, 3)...) }, ErrFormat},
	"memory of more pages than its file":    {func(f *forgery) { f.memory = append([]byte{1, 0, 1, 2, 2, 16}, encodeRun(runStored, 4)...) }, ErrFormat},
	"memory with zeros outside of its file": {func(f *forgery) { f.memory = append([]byte{1, 0, 1, 0, 2, 16}, encodeRun(runZero, 3)...) }, ErrFormat},
	"memory beyond all addresses": {func(f *forgery) {
		f.memory = append(append([]byte{1, 0, 1, 2, 11}, binary.AppendUvarint(nil, 1<<63)...), encodeRun(runStored, 3)...)
	}, ErrFormat},
	"memory of one process twice":                {func(f *forgery) { f.memory = append([]byte{2}, append(f.memory[1:], f.memory[1:]...)...) }, ErrFormat},
	"memory of a kind from the future":           {func(f *forgery) { f.memory = []byte{1, 2, 1, 0, 0} }, ErrUnsupported},
	"memory at other addresses than the pagemap": {func(f *forgery) { f.memory[5]++ }, ErrFormat},
	"memory of a process without a pagemap":      {func(f *forgery) { f.files[2].name = "b" }, ErrFormat},
	"a pagemap that is not in the index":         {func(f *forgery) { f.memory = []byte{0} }, ErrFormat},
	"bytes after the memory":                     {func(f *forgery) { f.memory = append(f.memory, 0) }, ErrFormat},
	"a section that must be understood":          {func(f *forgery) { f.more = appendSection(nil, 99, nil) }, ErrUnsupported},
	"a section twice":                            {func(f *forgery) { f.more = appendSection(nil, sectionMemory, f.memory) }, ErrFormat},
	"a section that is cut off":                  {func(f *forgery) { f.more = []byte{8, 100} }, ErrFormat},
	"an index without sections":                  {func(f *forgery) { f.index = []byte{} }, ErrFormat},
	"an index of random bytes":                   {func(f *forgery) { f.index = []byte(randomPages(1)) }, ErrFormat},
	"an index that decompresses to more":         {func(f *forgery) { f.change = func(e *trailer) { e.indexPlain-- } }, ErrFormat},
	"an index that decompresses to less":         {func(f *forgery) { f.change = func(e *trailer) { e.indexPlain++ } }, ErrFormat},
	"an index of an exabyte":                     {func(f *forgery) { f.change = func(e *trailer) { e.indexPlain = 1 << 60 } }, ErrLimit},
	"an index that is longer than the archive":   {func(f *forgery) { f.change = func(e *trailer) { e.indexStored = 1 << 40 } }, ErrDamaged},
	"frames that are longer than the archive":    {func(f *forgery) { f.change = func(e *trailer) { e.framesSize = 1 << 63 } }, ErrDamaged},
	"lengths whose sum overflows":                {func(f *forgery) { f.change = func(e *trailer) { e.framesSize -= 9; e.indexStored += 9 } }, ErrDamaged},
	"an index that is no zstd":                   {func(f *forgery) { f.stored = []byte("not compressed") }, ErrFormat},
	"more files than are permitted": {func(f *forgery) {
		f.index = appendSection(nil, sectionFiles, binary.AppendUvarint(nil, 1<<17), make([]byte, 1<<20))
		f.index = appendSection(appendSection(f.index, sectionFrames, nil), sectionMemory, []byte{0})
	}, ErrLimit},
	"more address spaces than are permitted": {func(f *forgery) { f.memory = append(binary.AppendUvarint(nil, 1<<17), make([]byte, 1<<20)...) }, ErrLimit},
	"more predecessors than are permitted": {func(f *forgery) {
		f.more = appendSection(nil, sectionPredecessors, binary.AppendUvarint(nil, 2000), make([]byte, 2000*64))
	}, ErrLimit},
	"a count of files that does not fit":          {func(f *forgery) { f.index = appendSection(nil, sectionFiles, binary.AppendUvarint(nil, 1<<60)) }, ErrFormat},
	"a frame that decompresses to less than said": {func(f *forgery) { f.bomb(5) }, ErrFormat},
	"a frame that decompresses to 64 MiB":         {func(f *forgery) { f.bomb(64 << 20) }, ErrFormat},
}

// predecessor says that a page lies in a predecessor of this number.
func (f *forgery) predecessor(number uint64) {
	f.files[1].runs = join(encodeRun(runStored, 1), encodeRun(runPredecessor, 1, number, 1, 0), encodeRun(runStored, 1))
}

// bomb makes the first frame decompress to another number of bytes than it says.
func (f *forgery) bomb(size int) {
	e, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20))
	if err != nil {
		panic(err)
	}
	data := e.EncodeAll(make([]byte, size), nil)
	f.frames[0] = forgedFrame{codec: codecZstd, stored: data, plain: uint64(len(data) + 10)}
	f.files[0].size = int64(f.frames[0].plain)
}

func TestHostileArchives(t *testing.T) {
	t.Parallel()
	if err := check(t, newForgery(t).encode(t), OpenOptions{}); err != nil {
		t.Fatal("the archive without a change:", err)
	}
	for name, tt := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForgery(t)
			tt.change(f)
			if err := check(t, f.encode(t), OpenOptions{}); !errors.Is(err, tt.err) {
				t.Errorf("got the error %v, want %v", err, tt.err)
			} else {
				t.Log(err)
			}
		})
	}
}

func TestWhatAReaderMayIgnore(t *testing.T) {
	t.Parallel()
	f := newForgery(t)
	f.more = appendSection(appendSection(nil, 6, []byte("x")), 98, []byte("y"))
	f.header.Keys = nil
	text, err := json.Marshal(f.header)
	if err != nil {
		t.Fatal(err)
	}
	text = append(bytes.TrimSuffix(text, []byte("}")), `,"future":{"a":[1]}}`...)
	if err := check(t, f.encodeWith(t, text), OpenOptions{}); err != nil {
		t.Error("an even section or an unknown field of the header is an error:", err)
	}
}

func TestPredecessors(t *testing.T) {
	t.Parallel()
	f := newForgery(t)
	f.predecessor(0)
	digest := bytes.Repeat([]byte{0xab}, digestSize)
	f.more = appendSection(nil, sectionPredecessors, []byte{1}, digest, make([]byte, digestSize))
	archive := f.encode(t)
	a := mustOpen(t, archive, OpenOptions{})
	got := make([]byte, defaultPageSize)
	if err := a.ReadPage(AddressSpace{ID: 1}, 18*defaultPageSize, got); err != nil || string(got) != page(2) {
		t.Errorf("the page behind that of the predecessor is %d, error %v", got[0], err)
	}
	var missing *PredecessorError
	if err := a.ReadPage(AddressSpace{ID: 1}, 17*defaultPageSize, got); !errors.As(err, &missing) || missing.Digest != formatDigest(digest) {
		t.Errorf("the page of the predecessor: error %v", err)
	}
	if _, err := a.ReadFile(t.Context(), "checkpoint/pages-1.img", 1<<20); !errors.Is(err, ErrPredecessor) {
		t.Errorf("the file with the page: error %v", err)
	}
	if err := a.Extract(t.Context(), t.TempDir()); !errors.Is(err, ErrPredecessor) {
		t.Errorf("extracting: error %v", err)
	}
	if _, err := a.Unpack(t.Context(), t.TempDir(), nil); !errors.Is(err, ErrPredecessor) {
		t.Errorf("unpacking: error %v", err)
	}
	verified, err := a.Verify(t.Context())
	if err != nil || len(verified.Predecessors) != 1 || verified.Predecessors[0] != missing.Digest {
		t.Errorf("verifying: %+v, error %v", verified, err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	archive := newForgery(t).encode(t)
	for name, limits := range map[string]Limits{
		"bytes of all files": {Total: 100}, "bytes of the index": {Index: 10}, "files": {Files: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := open(archive, OpenOptions{Limits: limits}); !errors.Is(err, ErrLimit) {
				t.Errorf("got the error %v", err)
			}
		})
	}
	if _, err := mustOpen(t, archive, OpenOptions{}).ReadFile(t.Context(), "a", 4); !errors.Is(err, ErrLimit) {
		t.Errorf("a file that is larger than the caller wants: error %v", err)
	}
	if _, err := mustOpen(t, archive, OpenOptions{}).ReadFile(t.Context(), "b", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: error %v", err)
	}
}

// Neither a link in the directory nor a file that is there makes Extract or Unpack write
// elsewhere.
func TestFilesStayInTheirDirectory(t *testing.T) {
	t.Parallel()
	a := mustOpen(t, newForgery(t).encode(t), OpenOptions{})
	t.Run("Extract", func(t *testing.T) { checkItStays(t, func(dir string) error { return a.Extract(t.Context(), dir) }) })
	t.Run("Unpack", func(t *testing.T) {
		checkItStays(t, func(dir string) error {
			_, err := a.Unpack(t.Context(), dir, nil)
			return err
		})
	})
}

func checkItStays(t *testing.T, write func(dir string) error) {
	t.Helper()
	outside := t.TempDir()
	for name, prepare := range map[string]func(dir string) error{
		"a link in place of the directory": func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "checkpoint")) },
		"a link in place of a file":        func(dir string) error { return os.Symlink(filepath.Join(outside, "a"), filepath.Join(dir, "a")) },
		"a file that exists":               func(dir string) error { return os.WriteFile(filepath.Join(dir, "a"), []byte("mine"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := prepare(dir); err != nil {
				t.Fatal(err)
			}
			if err := write(dir); err == nil {
				t.Error("there is no error")
			}
			if files, _ := os.ReadDir(outside); len(files) > 0 {
				t.Errorf("%s was written outside", files[0].Name())
			}
			if data, err := os.ReadFile(filepath.Join(dir, "a")); err == nil && string(data) == "hello" && name == "a file that exists" {
				t.Error("the file was overwritten")
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	for _, tt := range hostile {
		forged := newForgery(f)
		tt.change(forged)
		if archive := forged.encode(f); len(archive) < 1<<16 {
			f.Add(archive)
		}
	}
	small, _ := write(f, WriteOptions{}, smallCheckpoint(f)...)
	f.Add(small)
	f.Fuzz(func(t *testing.T, archive []byte) {
		a, err := open(reseal(archive), OpenOptions{Limits: Limits{Total: 1 << 24, Index: 1 << 20}})
		if err != nil {
			return
		}
		_, verifyErr := a.Verify(t.Context())
		if _, err := unpack(t, a); kindOf(err) != kindOf(verifyErr) && !errors.Is(err, ErrPredecessor) {
			t.Errorf("verifying returns the error %v, and unpacking %v", verifyErr, err)
		}
		if err := a.WriteTar(t.Context(), io.Discard); verifyErr == nil && err != nil && !errors.Is(err, ErrPredecessor) {
			t.Errorf("a verified archive cannot be exported: %v", err)
		}
		page := make([]byte, a.head.PageSize)
		for _, space := range a.AddressSpaces() {
			_ = a.ReadPage(space, 0x400000, page)
		}
	})
}

// reseal corrects the checksums of an archive where it can find them, so that a fuzzer gets
// beyond them.
func reseal(archive []byte) []byte {
	head, start, err := readHeader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil || head.encrypted() {
		return archive
	}
	archive = bytes.Clone(archive)
	sealer := checksums{salt: head.Salt}
	header := sealer.headerDigest(start[:len(start)-digestSize])
	copy(archive[len(start)-digestSize:], header[:])
	end, err := decodeTrailer(archive[len(archive)-trailerSize:])
	room := uint64(len(archive) - len(start) - trailerSize)
	if err != nil || end.framesSize > room {
		return archive
	}
	l := label{kind: sealedIndex, codec: codecZstd, plain: uint32(end.indexPlain), number: end.frames}
	_, end.indexTag = sealer.seal(l, nil, archive[uint64(len(start))+end.framesSize:len(archive)-trailerSize])
	end.digest = sealer.trailerDigest(header, end.fields())
	copy(archive[len(archive)-trailerSize:], end.encode())
	return archive
}
