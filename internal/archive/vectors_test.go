package archive

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

var update = flag.Bool("update", false, "write the test vectors anew: only for a new version of the format")

const (
	// vectorKey is the bytes 0x80 to 0x9f.
	vectorKey = "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
	// vectorIdentity opens age.hfca.
	vectorIdentity = "testdata/age-identity.txt"
)

// counting returns the bytes 0, 1, 2 and so on, as salt and data key of the vectors.
func counting() *bytes.Reader {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return bytes.NewReader(b)
}

// vectorContents is the checkpoint in all vectors.
func vectorContents(t *testing.T) []content {
	t.Helper()
	return []content{
		{"config.dump", "{}"},
		{"checkpoint/pagemap-1.img", pagemapImage(t, 1, mapping{0x400000, 2, criuPresent}, mapping{0x7ffd0000, 1, criuPresent})},
		{"checkpoint/pages-1.img", page('A') + page(0) + page('B')},
	}
}

func vectorOptions(t *testing.T) (write map[string]WriteOptions, secrets Secrets) {
	t.Helper()
	key, err := ParseKey([]byte(vectorKey))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(vectorIdentity)
	if err != nil {
		t.Fatal(err)
	}
	secrets, err = ParseSecrets(text)
	if err != nil {
		t.Fatal(err)
	}
	secrets.Keys = []Key{key}
	recipients, err := ParseRecipients(secrets.Identities[0].(*age.X25519Identity).Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]WriteOptions{"plain.hfca": {}, "key.hfca": {Key: &key}, "age.hfca": {Recipients: recipients}}, secrets
}

// Archives that were written once can be read for ever, and are written in the same way. A
// change of this test is a change of the format.
func TestVectors(t *testing.T) {
	options, secrets := vectorOptions(t)
	for name, option := range options {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name)
			if *update {
				writeVector(t, path, option)
			}
			stored, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			a := mustOpen(t, stored, OpenOptions{Secrets: secrets, Identity: testHeader().Identity})
			for _, c := range vectorContents(t) {
				if got, err := a.ReadFile(t.Context(), c.name, 1<<20); err != nil || string(got) != c.data {
					t.Errorf("%s has %d bytes, error %v", c.name, len(got), err)
				}
			}
			got := make([]byte, defaultPageSize)
			if err := a.ReadPage(AddressSpace{ID: 1}, 0x7ffd0000, got); err != nil || string(got) != page('B') {
				t.Errorf("the page at 0x7ffd0000 starts with %d, error %v", got[0], err)
			}
			if _, err := a.Verify(t.Context()); err != nil {
				t.Error("verifying:", err)
			}
		})
	}
}

func writeVector(t *testing.T, path string, option WriteOptions) {
	t.Helper()
	if err := os.WriteFile(path, encodeVector(t, option), 0o600); err != nil {
		t.Fatal(err)
	}
}

func encodeVector(t *testing.T, option WriteOptions) []byte {
	t.Helper()
	option.Random = counting()
	var out bytes.Buffer
	w, err := NewWriter(&out, testHeader(), option)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := add(w, t, vectorContents(t)...); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// What age does is random. The header of the others depends on nothing but the salt and the
// data key. Frames and index may differ when the library compresses better one day, so that
// only what is before them is compared.
func TestHeadersOfVectorsAreReproduced(t *testing.T) {
	options, _ := vectorOptions(t)
	for _, name := range []string{"plain.hfca", "key.hfca"} {
		stored, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		_, start, err := readHeader(bytes.NewReader(stored), int64(len(stored)))
		if err != nil {
			t.Fatal(err)
		}
		if written := encodeVector(t, options[name]); !bytes.HasPrefix(written, start) {
			t.Errorf("%s starts with\n%s, now it is written as\n%s", name, hex.Dump(start), hex.Dump(written[:len(start)]))
		}
	}
}

// The specification shows the vector without encryption byte for byte.
func TestSpecificationShowsTheVector(t *testing.T) {
	stored, err := os.ReadFile("testdata/plain.hfca")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/reference/archive-format.md")
	if err != nil {
		t.Fatal(err)
	}
	if dump := hex.Dump(stored); !strings.Contains(string(page), dump) {
		t.Errorf("docs/reference/archive-format.md lacks this dump:\n%s", dump)
	}
}
