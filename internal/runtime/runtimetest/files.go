package runtimetest

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"

	"google.golang.org/protobuf/encoding/protowire"
)

// The image of all fake containers.
const (
	imageName   = "registry.example.com/counter:1"
	imageDigest = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
)

// Magic numbers of CRIU's images; see criu/include/magic.h.
const (
	imagesMagic    = 0x54564319
	inventoryMagic = 0x58313116
	pagemapMagic   = 0x56084025
)

const pageSize = 4096

type dumpFile struct {
	name    string
	content []byte
}

// dumpFiles returns the files of a container's dump. Its memory is three pages in two areas:
// a page with its ID, one of zeros, and one with its counter.
func dumpFiles(c fakeContainer) ([]dumpFile, error) {
	config, err := json.Marshal(map[string]string{
		"id": c.ID, "name": c.Name, "rootfsImageName": imageName, "rootfsImage": imageName,
		"rootfsImageRef": imageDigest, "runtime": "io.containerd.runc.v2",
	})
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(map[string]any{"ociVersion": "1.2.1", "annotations": map[string]string{
		"io.kubernetes.cri.container-type":    "container",
		"io.kubernetes.cri.container-name":    c.Name,
		"io.kubernetes.cri.image-name":        imageName,
		"io.kubernetes.cri.sandbox-namespace": c.Namespace,
		"io.kubernetes.cri.sandbox-name":      c.Pod,
		"io.kubernetes.cri.sandbox-uid":       c.PodUID,
	}})
	if err != nil {
		return nil, err
	}
	diff, err := rootfsDiff()
	if err != nil {
		return nil, err
	}
	pages := make([]byte, 3*pageSize)
	copy(pages, c.ID)
	binary.LittleEndian.PutUint64(pages[2*pageSize:], uint64(c.Counter))
	return []dumpFile{
		{"config.dump", config},
		{"spec.dump", spec},
		{"checkpoint/inventory.img", criuImage(inventoryMagic, message(field{1, 2}, field{2, 1}, field{4, 1}))},
		{"checkpoint/pagemap-1.img", criuImage(pagemapMagic, message(field{1, 1}), pagemap(0x10000, 2), pagemap(0x20000, 1))},
		{"checkpoint/pages-1.img", pages},
		{"rootfs-diff.tar", diff},
	}, nil
}

// pagemap is a pagemap_entry of CRIU, with pages that are present.
func pagemap(address, pages uint64) []byte {
	const present = 1 << 2
	return message(field{1, address}, field{2, pages}, field{4, present}, field{5, pages})
}

// A field of a protobuf message, which is an integer.
type field struct {
	number protowire.Number
	value  uint64
}

func message(fields ...field) []byte {
	var encoded []byte
	for _, f := range fields {
		encoded = protowire.AppendTag(encoded, f.number, protowire.VarintType)
		encoded = protowire.AppendVarint(encoded, f.value)
	}
	return encoded
}

// criuImage is an image with messages, each behind its length.
func criuImage(magic uint32, messages ...[]byte) []byte {
	image := binary.LittleEndian.AppendUint32(nil, imagesMagic)
	image = binary.LittleEndian.AppendUint32(image, magic)
	for _, message := range messages {
		image = binary.LittleEndian.AppendUint32(image, uint32(len(message)))
		image = append(image, message...)
	}
	return image
}

func rootfsDiff() ([]byte, error) {
	var diff bytes.Buffer
	w := tar.NewWriter(&diff)
	content := []byte("written by the container\n")
	header := &tar.Header{Name: "data/file", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	return diff.Bytes(), w.Close()
}
