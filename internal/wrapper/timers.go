package wrapper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Fields of CRIU's images (file_entry in fdinfo.proto, timerfd_entry in timerfd.proto). A
// file of entries begins with two magic numbers; each entry has its size before it.
const (
	imageHeader  = 8
	fieldTimerfd = 12
	fieldTicks   = 5
	fieldSeconds = 7 // until the timer expires
	fieldNanos   = 8
	fieldEvery   = 9 // the interval, in seconds
	fieldEveryNs = 10
)

// armTimers changes the images of a checkpoint so that timers of timerfd_create(2) that
// repeat go on. One that has expired, and that nobody has read since, is not armed in the
// kernel before it is read. CRIU restores it as one that is not armed at all: it would never
// tick again. Now it expires at once.
func armTimers(images string) error {
	name := filepath.Join(images, "files.img")
	image, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // CRIU says what is missing.
	}
	if err != nil {
		return fmt.Errorf("reading the open files of the checkpoint: %w", err)
	}
	changed := false
	for rest := image[min(imageHeader, len(image)):]; len(rest) >= 4; {
		size := int64(binary.LittleEndian.Uint32(rest))
		if size > int64(len(rest)-4) {
			return nil // CRIU says what is wrong.
		}
		entry := rest[4 : 4+size]
		rest = rest[4+size:]
		if timer := fieldsOf(entry)[fieldTimerfd].bytes; timer != nil && arm(timer) {
			changed = true
		}
	}
	if !changed {
		return nil
	}
	if err := os.WriteFile(name, image, 0o600); err != nil {
		return fmt.Errorf("arming the timers of the checkpoint: %w", err)
	}
	return nil
}

// arm lets a timer expire at once, if it repeats and has expired. It reports whether it has
// changed the entry, whose length stays.
func arm(timer []byte) bool {
	fields := fieldsOf(timer)
	repeats := fields[fieldEvery].number > 0 || fields[fieldEveryNs].number > 0
	expires := fields[fieldSeconds].number > 0 || fields[fieldNanos].number > 0
	nanos := fields[fieldNanos].at
	if !repeats || expires || fields[fieldTicks].number == 0 || len(nanos) != 1 {
		return false
	}
	nanos[0] = 1
	return true
}

// A field is one of a message of protocol buffers.
type field struct {
	number uint64
	at     []byte // where the number is
	bytes  []byte // of a message in it
}

// fieldsOf returns the numbers and messages among the fields of a message, up to the first
// that it does not understand.
func fieldsOf(message []byte) map[uint64]field {
	fields := map[uint64]field{}
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			break
		}
		message = message[n:]
		f, size, ok := parseField(tag&7, message)
		if !ok {
			break
		}
		fields[tag>>3] = f
		message = message[size:]
	}
	return fields
}

// parseField parses a field of a kind at the beginning of a text, and returns its size.
func parseField(kind uint64, text []byte) (f field, size int, ok bool) {
	const number, eightBytes, bytes, fourBytes = 0, 1, 2, 5
	value, n := binary.Uvarint(text)
	switch kind {
	case number:
		return field{number: value, at: text[:max(n, 0)]}, n, n > 0
	case bytes:
		if n <= 0 || value > uint64(len(text)-n) {
			return field{}, 0, false
		}
		size = n + int(value)
		return field{bytes: text[n:size]}, size, true
	case eightBytes:
		return field{}, 8, len(text) >= 8
	case fourBytes:
		return field{}, 4, len(text) >= 4
	default:
		return field{}, 0, false
	}
}
