package archive

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
)

// KeySize is the size of a key in bytes.
const KeySize = 32

// A Key encrypts archives. Every archive has a data key of its own, which is encrypted with
// the Key. A Key prints as its ID.
type Key struct{ secret [KeySize]byte }

// NewKey returns a random key.
func NewKey() Key {
	var k Key
	rand.Read(k.secret[:])
	return k
}

// ParseKey reads a key from the contents of a file or of a Secret: 32 random bytes, or their
// 64 hexadecimal digits, or their base64.
func ParseKey(data []byte) (Key, error) {
	secret := data
	if len(data) != KeySize {
		secret = decodeKey(string(bytes.TrimSpace(data)))
	}
	if len(secret) != KeySize {
		return Key{}, fmt.Errorf("this is no key: want %d random bytes, or their %d hexadecimal digits, or their base64; "+
			"make one with: head -c %[1]d /dev/urandom", KeySize, 2*KeySize)
	}
	if isText(secret) {
		return Key{}, fmt.Errorf("a key of %d printable characters can be guessed: want random bytes; "+
			"make them with: head -c %[1]d /dev/urandom", KeySize)
	}
	return Key{secret: [KeySize]byte(secret)}, nil
}

func decodeKey(text string) []byte {
	if key, err := hex.DecodeString(text); err == nil {
		return key
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return key
}

func isText(secret []byte) bool {
	return !bytes.ContainsFunc(secret, func(r rune) bool { return r < ' ' || r > '~' })
}

// ID identifies the key without revealing it: 16 hexadecimal digits.
func (k Key) ID() string {
	return hex.EncodeToString(k.derive(nil, "holdfast archive key id", 8))
}

// String returns the ID, so that a key never gets into a log.
func (k Key) String() string { return k.ID() }

// GoString is String.
func (k Key) GoString() string { return k.ID() }

func (k Key) derive(salt []byte, info string, size int) []byte {
	key, err := hkdf.Key(sha256.New, k.secret[:], salt, info, size)
	if err != nil {
		panic(err) // only for sizes that nobody asks for
	}
	return key
}

// Secrets open encrypted archives.
type Secrets struct {
	Keys       []Key
	Identities []age.Identity
}

// ParseSecrets reads the contents of a key file: a key as in [ParseKey], or the identities
// of age, as age-keygen writes them.
func ParseSecrets(data []byte) (Secrets, error) {
	if bytes.Contains(data, []byte("AGE-SECRET-KEY-")) {
		identities, err := age.ParseIdentities(bytes.NewReader(data))
		if err != nil {
			return Secrets{}, errors.New("reading the age identities: a line is not what age-keygen writes") // err quotes it
		}
		return Secrets{Identities: identities}, nil
	}
	key, err := ParseKey(data)
	if err != nil {
		return Secrets{}, err
	}
	return Secrets{Keys: []Key{key}}, nil
}

// A Recipient is a public key of age, for which an archive can be encrypted.
type Recipient struct {
	name string
	age.Recipient
}

// ParseRecipients reads public keys of age, one a line: age1….
func ParseRecipients(text string) ([]Recipient, error) {
	parsed, err := age.ParseRecipients(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("reading the recipients: %w", err)
	}
	recipients := make([]Recipient, len(parsed))
	for i, r := range parsed {
		recipients[i] = Recipient{name: fmt.Sprint(r), Recipient: r}
	}
	return recipients, nil
}
