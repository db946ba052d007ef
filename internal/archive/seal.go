package archive

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"hash"
)

// A sealer protects the parts of an archive: with checksums, or with encryption. Its methods
// may be called concurrently.
type sealer interface {
	// seal encrypts data, if the archive is encrypted, and returns it with its tag. It
	// overwrites buffer, which may be data.
	seal(l label, buffer, data []byte) ([]byte, [tagSize]byte)
	// open is the inverse, in place.
	open(l label, data []byte, tag []byte) ([]byte, error)
	// headerDigest is the digest of an archive from its first byte to the end of the header.
	headerDigest(head []byte) [digestSize]byte
	// trailerDigest is the digest of the trailer. With the tags of the index it commits to
	// every byte of the archive.
	trailerDigest(header [digestSize]byte, fields []byte) [digestSize]byte
}

// checksums are the sealer of an archive that is not encrypted.
type checksums struct{ salt []byte }

func (c checksums) seal(l label, buffer, data []byte) (stored []byte, tag [tagSize]byte) {
	copy(tag[:], c.tag(l, data))
	if len(data) > 0 && (len(buffer) == 0 || &buffer[0] != &data[0]) {
		data = append(buffer[:0], data...)
	}
	return data, tag
}

func (c checksums) open(l label, data []byte, tag []byte) ([]byte, error) {
	if subtle.ConstantTimeCompare(c.tag(l, data), tag) != 1 {
		return nil, damaged("the checksum of %v differs", l)
	}
	return data, nil
}

// tag covers the salt, so that nobody can prepare two contents with the same tag before the
// archive is written.
func (c checksums) tag(l label, data []byte) []byte {
	encoded := l.encode()
	h := sha256.New()
	h.Write(c.salt)
	h.Write(encoded[:])
	h.Write(data)
	return h.Sum(nil)[:tagSize]
}

func (checksums) headerDigest(head []byte) [digestSize]byte { return sha256.Sum256(head) }

func (checksums) trailerDigest(header [digestSize]byte, fields []byte) [digestSize]byte {
	return digestOf(sha256.New(), header[:], fields)
}

// An encrypter is the sealer of an encrypted archive. Its keys derive from the archive's
// data key and from the salt, but not from the rest of the header: the data key can be
// encrypted for another key without encrypting the frames again.
type encrypter struct {
	aead                  cipher.AEAD
	headerKey, trailerKey []byte
}

func newEncrypter(dataKey, salt []byte) (*encrypter, error) {
	keys := map[string][]byte{"frames": nil, "header": nil, "trailer": nil}
	for name := range keys {
		key, err := hkdf.Key(sha256.New, dataKey, salt, "holdfast archive "+name, 32)
		if err != nil {
			return nil, fmt.Errorf("deriving a key: %w", err)
		}
		keys[name] = key
	}
	aead, err := newGCM(keys["frames"])
	if err != nil {
		return nil, err
	}
	return &encrypter{aead: aead, headerKey: keys["header"], trailerKey: keys["trailer"]}, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("setting up AES: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("setting up AES-GCM: %w", err)
	}
	return aead, nil
}

func (e *encrypter) seal(l label, buffer, data []byte) (stored []byte, tag [tagSize]byte) {
	nonce, encoded := l.nonce(), l.encode()
	sealed := e.aead.Seal(buffer[:0], nonce[:], data, encoded[:])
	stored = sealed[:len(data)]
	copy(tag[:], sealed[len(data):])
	return stored, tag
}

func (e *encrypter) open(l label, data []byte, tag []byte) ([]byte, error) {
	nonce, encoded := l.nonce(), l.encode()
	plain, err := e.aead.Open(data[:0], nonce[:], append(data, tag...), encoded[:])
	if err != nil {
		return nil, damaged("%v cannot be decrypted: it was changed, or belongs to another archive", l)
	}
	return plain, nil
}

func (e *encrypter) headerDigest(head []byte) [digestSize]byte {
	return digestOf(hmac.New(sha256.New, e.headerKey), head)
}

func (e *encrypter) trailerDigest(header [digestSize]byte, fields []byte) [digestSize]byte {
	return digestOf(hmac.New(sha256.New, e.trailerKey), header[:], fields)
}

func digestOf(h hash.Hash, parts ...[]byte) (digest [digestSize]byte) {
	for _, part := range parts {
		h.Write(part)
	}
	h.Sum(digest[:0])
	return digest
}
