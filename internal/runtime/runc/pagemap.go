package runc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"google.golang.org/protobuf/proto"
)

// Flags of an entry of a page map, of CRIU's images/pagemap.proto.
const (
	pageInParent = 1 << 0
	pageIsLazy   = 1 << 1
	pageInImage  = 1 << 2
)

// magicSize is the size of the two numbers with which an image of CRIU begins, in bytes.
const magicSize = 8

// A pageMap is a pagemap-N.img of CRIU: which pages of a process are in which image, in
// which order.
type pageMap struct {
	magic   []byte
	head    *pagemap.PagemapHead
	entries []*pagemap.PagemapEntry
}

// readPageMap reads an image: the magic, then messages with their sizes before them.
func readPageMap(image []byte) (*pageMap, error) {
	if len(image) < magicSize {
		return nil, errors.New("the image is too short")
	}
	m := &pageMap{magic: image[:magicSize], head: &pagemap.PagemapHead{}}
	rest := image[magicSize:]
	for first := true; len(rest) > 0; first = false {
		if len(rest) < 4 || uint64(len(rest)-4) < uint64(binary.LittleEndian.Uint32(rest)) {
			return nil, errors.New("the image is cut off")
		}
		size := binary.LittleEndian.Uint32(rest)
		message := rest[4 : 4+size]
		rest = rest[4+size:]
		if first {
			if err := proto.Unmarshal(message, m.head); err != nil {
				return nil, fmt.Errorf("reading the head of the image: %w", err)
			}
			continue
		}
		entry := &pagemap.PagemapEntry{}
		if err := proto.Unmarshal(message, entry); err != nil {
			return nil, fmt.Errorf("reading the image: %w", err)
		}
		m.entries = append(m.entries, entry)
	}
	return m, nil
}

// encode returns the image.
func (m *pageMap) encode() ([]byte, error) {
	image := bytes.NewBuffer(bytes.Clone(m.magic))
	messages := []proto.Message{m.head}
	for _, entry := range m.entries {
		messages = append(messages, entry)
	}
	for _, message := range messages {
		text, err := proto.Marshal(message)
		if err != nil {
			return nil, fmt.Errorf("encoding the image: %w", err)
		}
		image.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(text))))
		image.Write(text)
	}
	return image.Bytes(), nil
}

// pagesOf returns the number of pages of an entry. Older versions of CRIU have another
// field for it.
func pagesOf(entry *pagemap.PagemapEntry) uint64 {
	if entry.NrPages != nil {
		return entry.GetNrPages()
	}
	return uint64(entry.GetCompatNrPages())
}

// pagesImage is the image with the pages of a page map.
func (m *pageMap) pagesImage() string {
	return "pages-" + strconv.FormatUint(uint64(m.head.GetPagesId()), 10) + ".img"
}

// merge returns where the pages of a process are, in the order in which they belong into
// its image of pages: those that CRIU has dumped there, and between them those that it
// has left out, which are in the copy. The page map says afterwards that all are there.
func (m *pageMap) merge(copied *memoryCopy, process int, image, copyPath string) ([]part, error) {
	var parts []part
	var offset int64 // in CRIU's image
	for _, entry := range m.entries {
		length := pagesOf(entry) * pageSize
		switch flags := entry.GetFlags(); {
		case flags&pageInParent != 0:
			return nil, errors.New("a page is in the images of another checkpoint")
		case flags&pageInImage != 0:
			parts = appendPart(parts, part{Path: image, Offset: offset, Length: int64(length)})
			offset += int64(length)
		case flags&pageIsLazy != 0:
			found, err := copied.parts(process, entry.GetVaddr(), entry.GetVaddr()+length, copyPath)
			if err != nil {
				return nil, err
			}
			for _, p := range found {
				parts = appendPart(parts, p)
			}
			entry.Flags = proto.Uint32(flags | pageInImage)
		default:
			return nil, fmt.Errorf("the pages at %#x are neither in the image nor lazy", entry.GetVaddr())
		}
	}
	return parts, nil
}

// appendPart appends a part, to the last one if it continues that.
func appendPart(parts []part, p part) []part {
	if n := len(parts); n > 0 && parts[n-1].Path == p.Path && parts[n-1].Offset+parts[n-1].Length == p.Offset {
		parts[n-1].Length += p.Length
		return parts
	}
	return append(parts, p)
}

// mergeImages completes the images of a container: it rewrites the page maps of its
// processes, and returns where the contents of the images of pages are, by their names.
// base is the directory to which parts are relative.
func mergeImages(images string, copied *memoryCopy, base string) (map[string][]part, error) {
	names, err := filepath.Glob(filepath.Join(images, "pagemap-*.img"))
	if err != nil {
		return nil, fmt.Errorf("listing the page maps: %w", err)
	}
	copied.sort()
	merged := map[string][]part{}
	for _, name := range names {
		number := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(name), "pagemap-"), ".img")
		process, err := strconv.Atoi(number)
		if err != nil {
			continue // pagemap-shmem-N.img: shared memory is never lazy
		}
		pages, parts, err := mergeImage(name, process, copied, base)
		if err != nil {
			return nil, fmt.Errorf("merging %s: %w", filepath.Base(name), err)
		}
		merged[pages] = parts
	}
	return merged, nil
}

// mergeImage does that for one process, and returns the name of its image of pages.
func mergeImage(name string, process int, copied *memoryCopy, base string) (string, []part, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", nil, fmt.Errorf("reading it: %w", err)
	}
	m, err := readPageMap(text)
	if err != nil {
		return "", nil, err
	}
	pages := m.pagesImage()
	image, imageErr := filepath.Rel(base, filepath.Join(filepath.Dir(name), pages))
	copyPath, copyErr := filepath.Rel(base, copied.file.Name())
	if err := errors.Join(imageErr, copyErr); err != nil {
		return "", nil, fmt.Errorf("naming the files with its pages: %w", err)
	}
	parts, err := m.merge(copied, process, image, copyPath)
	if err != nil {
		return "", nil, err
	}
	if text, err = m.encode(); err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return "", nil, fmt.Errorf("writing it: %w", err)
	}
	return pages, parts, nil
}
