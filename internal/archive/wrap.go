package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// Types of wrapped keys. A reader ignores the others.
const (
	wrappedByKey = "key"
	wrappedByAge = "age"
)

// A wrappedKey is the data key of an archive, encrypted so that a holder of a secret can
// decrypt it.
type wrappedKey struct {
	Type string `json:"type"`
	// ID says who can: the ID of the key, or the recipients of age, separated by spaces.
	ID      string `json:"id"`
	Wrapped []byte `json:"wrapped"`
}

func (w wrappedKey) String() string {
	if w.Type == wrappedByAge {
		return "the age recipients " + w.ID
	}
	return w.Type + " " + w.ID
}

func wrapWithKey(key Key, salt, dataKey []byte) (wrappedKey, error) {
	aead, err := newGCM(key.derive(salt, "holdfast archive key wrap", 32))
	if err != nil {
		return wrappedKey{}, err
	}
	// The nonce is constant because the key is used once: it derives from a random salt.
	nonce := make([]byte, aead.NonceSize())
	wrapped := aead.Seal(nil, nonce, dataKey, nil) //nolint:gosec // see above
	return wrappedKey{Type: wrappedByKey, ID: key.ID(), Wrapped: wrapped}, nil
}

func unwrapWithKey(key Key, salt, wrapped []byte) ([]byte, error) {
	aead, err := newGCM(key.derive(salt, "holdfast archive key wrap", 32))
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, make([]byte, aead.NonceSize()), wrapped, nil)
}

func wrapWithAge(recipients []Recipient, dataKey []byte) (wrappedKey, error) {
	to, names := make([]age.Recipient, len(recipients)), make([]string, len(recipients))
	for i, r := range recipients {
		to[i], names[i] = r.Recipient, r.name
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return wrappedKey{}, fmt.Errorf("encrypting the data key for the recipients: %w", err)
	}
	_, err = w.Write(dataKey)
	if err := errors.Join(err, w.Close()); err != nil {
		return wrappedKey{}, fmt.Errorf("encrypting the data key for the recipients: %w", err)
	}
	return wrappedKey{Type: wrappedByAge, ID: strings.Join(names, " "), Wrapped: out.Bytes()}, nil
}

func unwrapWithAge(identities []age.Identity, wrapped []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(wrapped), identities...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, KeySize+1))
}

// unwrap returns the data key. It tries all secrets whatever the IDs say, because these are
// not authenticated yet: a damaged ID must not look like a wrong key.
func (s Secrets) unwrap(salt []byte, wrapped []wrappedKey) ([]byte, error) {
	for _, w := range wrapped {
		for _, dataKey := range s.candidates(salt, w) {
			if len(dataKey) == KeySize {
				return dataKey, nil
			}
		}
	}
	return nil, s.explain(wrapped)
}

func (s Secrets) candidates(salt []byte, w wrappedKey) (dataKeys [][]byte) {
	switch w.Type {
	case wrappedByKey:
		for _, key := range s.Keys {
			if dataKey, err := unwrapWithKey(key, salt, w.Wrapped); err == nil {
				dataKeys = append(dataKeys, dataKey)
			}
		}
	case wrappedByAge:
		if len(s.Identities) > 0 {
			if dataKey, err := unwrapWithAge(s.Identities, w.Wrapped); err == nil {
				dataKeys = append(dataKeys, dataKey)
			}
		}
	}
	return dataKeys
}

// explain says why no secret opens the archive.
func (s Secrets) explain(wrapped []wrappedKey) error {
	need := make([]string, len(wrapped))
	for i, w := range wrapped {
		need[i] = w.String()
	}
	with := strings.Join(need, " and with ")
	if len(s.Keys) == 0 && len(s.Identities) == 0 {
		return fmt.Errorf("%w with %s, and no key was given", ErrKey, with)
	}
	var have []string
	for _, key := range s.Keys {
		for _, w := range wrapped {
			if w.Type == wrappedByKey && w.ID == key.ID() {
				return damaged("key %s is the one it was encrypted with, but does not decrypt its data key", w.ID)
			}
		}
		have = append(have, "key "+key.ID())
	}
	if n := len(s.Identities); n > 0 {
		have = append(have, fmt.Sprintf("%d age identities", n))
	}
	return fmt.Errorf("%w with %s, and not with %s, which was given", ErrKey, with, strings.Join(have, " or "))
}
