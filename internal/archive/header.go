package archive

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Identity says of which container a checkpoint is. An empty field is unknown.
type Identity struct {
	Namespace   string `json:"namespace,omitempty"`
	Pod         string `json:"pod,omitempty"`
	PodUID      string `json:"podUID,omitempty"`
	Container   string `json:"container,omitempty"`
	ContainerID string `json:"containerID,omitempty"`
}

// String names the container: "shop/web-0 (UID …), container app (ID …)".
func (i Identity) String() string {
	return fmt.Sprintf("%s/%s (UID %s), container %s (ID %s)", i.Namespace, i.Pod, i.PodUID, i.Container, i.ContainerID)
}

// fields returns the fields in the order of the format.
func (i Identity) fields() []string {
	return []string{i.Namespace, i.Pod, i.PodUID, i.Container, i.ContainerID}
}

// check compares an archive's identity with the one that a caller expects. Fields that are
// not expected are not compared.
func (i Identity) check(expected Identity) error {
	have := i.fields()
	for n, want := range expected.fields() {
		if want != "" && want != have[n] {
			return fmt.Errorf("%w: it is of %v, and %v was expected", ErrIdentity, i, expected)
		}
	}
	return nil
}

// Limits of what a header may say, in bytes and entries.
const (
	maxIdentity = 253
	maxMetadata = 64
	maxKeyName  = 64
	maxValue    = 1024
)

// Header describes a checkpoint. It is authenticated, but not encrypted: whoever can read
// the archive can read it, so it must not hold secrets.
type Header struct {
	Identity Identity `json:"identity"`
	// Created is when the container was frozen.
	Created time.Time `json:"created"`
	// Metadata are facts about the checkpoint, such as the engine, the versions of CRIU and of
	// the kernel, and the architecture: up to 64, with names of up to 64 bytes and values of
	// up to 1024, without control characters.
	Metadata map[string]string `json:"metadata,omitempty"`
}

func (h *Header) validate() error {
	for _, s := range h.Identity.fields() {
		if len(s) > maxIdentity || !isPrintable(s) {
			return formatError("the identity %.300q is too long or has control characters", s)
		}
	}
	if len(h.Metadata) > maxMetadata {
		return formatError("the header has %d entries of metadata, and at most %d are permitted", len(h.Metadata), maxMetadata)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Metadata)) {
		if name == "" || len(name) > maxKeyName || len(h.Metadata[name]) > maxValue || !isPrintable(name+h.Metadata[name]) {
			return formatError("the metadata %.80q are too long or have control characters", name)
		}
	}
	return nil
}

// isPrintable reports whether a terminal shows s as it is: an archive is hostile input, and
// must not move the cursor.
func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Values of the field "protection".
const (
	protectionChecksum   = "sha-256-128"
	protectionEncryption = "aes-256-gcm"
)

// encodedHeader is the header in an archive, as JSON.
type encodedHeader struct {
	Created     time.Time         `json:"created"`
	Identity    Identity          `json:"identity"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Compression string            `json:"compression"`
	Protection  string            `json:"protection"`
	Salt        []byte            `json:"salt"`
	PageSize    int               `json:"pageSize"`
	FrameSize   int               `json:"frameSize"`
	Keys        []wrappedKey      `json:"keys,omitempty"`
	// MustUnderstand names what a reader has to know in order to read the archive. This
	// version knows nothing that would have to be named.
	MustUnderstand []string `json:"mustUnderstand,omitempty"`
}

func decodeHeader(text []byte) (*encodedHeader, error) {
	h := &encodedHeader{}
	if err := json.Unmarshal(text, h); err != nil {
		return nil, formatError("its header cannot be read: %v", err)
	}
	switch {
	case len(h.MustUnderstand) > 0:
		return nil, unsupported("it uses %.200q, which this version does not know", h.MustUnderstand)
	case h.Compression != "zstd":
		return nil, unsupported("it is compressed with %.100q, and this version knows zstd", h.Compression)
	case h.Protection != protectionChecksum && h.Protection != protectionEncryption:
		return nil, unsupported("it is protected with %.100q, and this version knows %s and %s", h.Protection, protectionChecksum, protectionEncryption)
	case h.encrypted() != (len(h.Keys) > 0):
		return nil, formatError("its header has %d keys, and its protection is %s", len(h.Keys), h.Protection)
	}
	return h, h.validate()
}

func (h *encodedHeader) validate() error {
	for _, key := range h.Keys {
		if !isPrintable(key.Type + key.ID) {
			return formatError("the ID of a key has control characters")
		}
	}
	switch {
	case len(h.Salt) != saltSize:
		return formatError("its salt has %d bytes instead of %d", len(h.Salt), saltSize)
	case !isPageSize(h.PageSize):
		return formatError("its page size is %d", h.PageSize)
	case h.FrameSize < h.PageSize || h.FrameSize > maxFrameSize || h.FrameSize%h.PageSize != 0:
		return formatError("its frame size is %d", h.FrameSize)
	}
	return (&Header{Identity: h.Identity, Metadata: h.Metadata}).validate()
}

// isPageSize reports whether a Linux kernel has pages of this size.
func isPageSize(n int) bool { return n == 4<<10 || n == 16<<10 || n == 64<<10 }

func (h *encodedHeader) encrypted() bool { return h.Protection == protectionEncryption }

// sealer returns what checks and decrypts the archive.
func (h *encodedHeader) sealer(secrets Secrets) (sealer, error) {
	if !h.encrypted() {
		return checksums{salt: h.Salt}, nil
	}
	dataKey, err := secrets.unwrap(h.Salt, h.Keys)
	if err != nil {
		return nil, err
	}
	return newEncrypter(dataKey, h.Salt)
}
