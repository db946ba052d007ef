package archive

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"google.golang.org/protobuf/proto"
)

// testHeader is the header of all archives in tests.
func testHeader() Header {
	return Header{
		Identity: Identity{
			Namespace: "shop", Pod: "web-0", PodUID: "5c2c8d8e-7a52-4b5a-9a52-0d8b5d1f0c11", Container: "app", ContainerID: "9f2d",
		},
		Created:  time.Date(2026, 11, 30, 1, 2, 3, 0, time.UTC),
		Metadata: map[string]string{"engine": "runc", "criu": "4.2.1", "architecture": "amd64"},
	}
}

// seeded returns a source of bytes that are the same in each run.
func seeded(n uint64) io.Reader {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], n)
	return rand.NewChaCha8(seed)
}

func testKey(t testing.TB, n uint64) *Key {
	t.Helper()
	secret := make([]byte, KeySize)
	if _, err := io.ReadFull(seeded(n), secret); err != nil {
		t.Fatal(err)
	}
	key, err := ParseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return &key
}

// testAge returns an identity of age and its recipient.
func testAge(t testing.TB) (age.Identity, []Recipient) {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	recipients, err := ParseRecipients(identity.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	return identity, recipients
}

// A mapping is an entry of a pagemap.
type mapping struct {
	address, pages uint64
	flags          uint32
}

// pagemapImage encodes a pagemap as CRIU writes it.
func pagemapImage(t testing.TB, pagesID uint32, mappings ...mapping) string {
	t.Helper()
	image := binary.LittleEndian.AppendUint32(nil, criuImageMagic)
	image = binary.LittleEndian.AppendUint32(image, criuPagemapMagic)
	image = appendMessage(t, image, &pagemap.PagemapHead{PagesId: &pagesID})
	for _, m := range mappings {
		image = appendMessage(t, image, &pagemap.PagemapEntry{
			Vaddr: &m.address, CompatNrPages: proto.Uint32(uint32(m.pages)), NrPages: &m.pages, Flags: &m.flags,
		})
	}
	return string(image)
}

func appendMessage(t testing.TB, image []byte, m proto.Message) []byte {
	t.Helper()
	encoded, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.LittleEndian.AppendUint32(image, uint32(len(encoded))), encoded...)
}

// page returns a page whose contents depend on n; 0 is the page of zeros.
func page(n byte) string { return strings.Repeat(string([]byte{n}), defaultPageSize) }

// randomPages returns incompressible pages.
func randomPages(n int) string {
	b := make([]byte, n*defaultPageSize)
	_, _ = io.ReadFull(seeded(uint64(n)), b)
	return string(b)
}

// A content is a file of a checkpoint in a test.
type content struct{ name, data string }

// smallCheckpoint has a file of each kind: data, an empty file, pages with zeros, pagemaps.
func smallCheckpoint(t testing.TB) []content {
	t.Helper()
	return []content{
		{"config.dump", `{"id":"9f2d","name":"app"}`},
		{"checkpoint/pages-1.img", page(1) + page(0) + page(0) + page(2) + page(0)},
		{"checkpoint/pagemap-1.img", pagemapImage(t, 1, mapping{0x400000, 2, criuPresent}, mapping{0x7ffd0000, 3, criuPresent})},
		{"checkpoint/pagemap-shmem-5.img", pagemapImage(t, 2, mapping{0x1000, 1, criuPresent | criuLazy})},
		{"checkpoint/pages-2.img", page(3)},
		{"rootfs-diff.tar", ""},
	}
}

func add(w *Writer, t testing.TB, contents ...content) error {
	t.Helper()
	for _, c := range contents {
		if err := w.Add(t.Context(), File{Name: c.name, Size: int64(len(c.data)), Mode: 0o600, Reader: strings.NewReader(c.data)}); err != nil {
			return err
		}
	}
	return nil
}

// write writes an archive, whose salt and data key are the same in each run.
func write(t testing.TB, options WriteOptions, contents ...content) ([]byte, *Result) {
	t.Helper()
	var out bytes.Buffer
	options.Random = seeded(1)
	w, err := NewWriter(&out, testHeader(), options)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := add(w, t, contents...); err != nil {
		t.Fatal(err)
	}
	result, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), result
}

func open(archive []byte, options OpenOptions) (*Reader, error) {
	return Open(bytes.NewReader(archive), int64(len(archive)), options)
}

func mustOpen(t testing.TB, archive []byte, options OpenOptions) *Reader {
	t.Helper()
	a, err := open(archive, options)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A protection is a way to protect an archive.
type protection struct {
	write WriteOptions
	open  OpenOptions
}

func protections(t testing.TB) map[string]protection {
	t.Helper()
	key := testKey(t, 7)
	identity, recipients := testAge(t)
	return map[string]protection{
		"not encrypted":        {},
		"encrypted with a key": {WriteOptions{Key: key}, OpenOptions{Secrets: Secrets{Keys: []Key{*key}}}},
		"encrypted with age":   {WriteOptions{Recipients: recipients}, OpenOptions{Secrets: Secrets{Identities: []age.Identity{identity}}}},
	}
}
