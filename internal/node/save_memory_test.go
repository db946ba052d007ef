package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-io/holdfast/internal/app"
	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/egress"
	"github.com/holdfast-io/holdfast/internal/store/local"
	"github.com/holdfast-io/holdfast/internal/store/s3"
	"github.com/holdfast-io/holdfast/test/s3server"
)

// savingEnv has the directory, or the URL of the S3 server, into which this test program
// saves a large dump, instead of running tests.
const savingEnv = "HOLDFAST_TEST_SAVE_INTO"

var full = flag.Bool("full", false, "save 4 GiB, not 512 MiB")

func TestMain(m *testing.M) {
	to := os.Getenv(savingEnv)
	if to == "" {
		os.Exit(m.Run())
	}
	if err := saveLarge(to); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// saveLarge saves a large dump and prints how many bytes this process has ever had from the
// kernel, beside its program and the race detector.
func saveLarge(into string) error {
	app.LimitGarbage(MaxGarbage) // as the agent does
	to, err := largeStore(into)
	if err != nil {
		return err
	}
	if _, err := SaveDump(context.Background(), to, "large", &largeDump{}, nil); err != nil {
		return err
	}
	var memory goruntime.MemStats
	goruntime.ReadMemStats(&memory)
	fmt.Println(memory.Sys)
	return nil
}

const largeBucket = "large"

func largeStore(into string) (store.Store, error) {
	if filepath.IsAbs(into) {
		return local.New(into), nil
	}
	allowed := egress.Policy{AllowEndpoints: []string{"127.0.0.1"}}
	return s3.New(s3.Config{
		Endpoint: into, Bucket: largeBucket, DialContext: allowed.DialContext,
		Credentials: s3.Credentials{AccessKeyID: s3server.AccessKeyID, SecretAccessKey: s3server.SecretAccessKey},
	})
}

// The memory of the agent does not grow with what it stores.
func TestSavingALargeDumpTakesLittleMemory(t *testing.T) {
	t.Parallel()
	server := s3server.Start(t, s3server.Options{})
	if err := os.Mkdir(filepath.Join(server.Dir, largeBucket), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, into := range map[string]string{"into a directory": t.TempDir(), "into a bucket": server.URL()} {
		t.Run(name, func(t *testing.T) { testSavingALargeDump(t, into) })
	}
}

func testSavingALargeDump(t *testing.T, into string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), savingEnv+"="+into)
	if *full {
		cmd.Env = append(cmd.Env, savingEnv+"_FULL=1")
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if _, err := fmt.Sscan(string(out), &got); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB were stored with %d MiB of RAM", largeSize()>>20, got>>20)
	if got > most {
		t.Errorf("%d MiB were stored with %d MiB of RAM, want at most %d", largeSize()>>20, got>>20, most>>20)
	}
}

// most is how much memory may be taken, in bytes. Beside it the agent has about 30 MiB of its
// program's file in RAM.
const most = 40 << 20

// largeSize is the size of the dump in bytes. It is small by default only because compressing
// takes its time.
func largeSize() int64 {
	if *full || os.Getenv(savingEnv+"_FULL") != "" {
		return 4 << 30
	}
	return 512 << 20
}

const (
	largePageSize = 4096
	// Of CRIU's images.
	imagesMagic, pagemapMagic = 0x54564319, 0x56084025
	pageIsPresent             = 1 << 2
)

// A largeDump is a dump of much memory. Each page is different and compresses well.
type largeDump struct{}

func (*largeDump) Report() runtime.Report {
	c := runtime.Container{Namespace: "default", Pod: "large", PodUID: "uid", Name: "main", ID: "id"}
	return runtime.Report{Container: c, Engine: "runc", Step: runtime.Disk, FrozenAt: time.Unix(0, 0)}
}

func (*largeDump) Discard() error { return nil }

func (*largeDump) Files(_ context.Context, _ bool, each func(runtime.File) error) error {
	index, err := largePagemap()
	if err != nil {
		return err
	}
	if err := each(runtime.File{Name: "checkpoint/pagemap-1.img", Size: int64(len(index)), Mode: 0o600, Reader: bytes.NewReader(index)}); err != nil {
		return err
	}
	return each(runtime.File{Name: "checkpoint/pages-1.img", Size: largeSize(), Mode: 0o600, Reader: io.LimitReader(&pages{}, largeSize())})
}

// largePagemap is an image with one range of pages in each 2 MiB.
func largePagemap() ([]byte, error) {
	image := binary.LittleEndian.AppendUint32(nil, imagesMagic)
	image = binary.LittleEndian.AppendUint32(image, pagemapMagic)
	messages := []proto.Message{&pagemap.PagemapHead{PagesId: proto.Uint32(1)}}
	const each = 256
	for n := uint64(0); n < uint64(largeSize())/largePageSize; n += each {
		messages = append(messages, &pagemap.PagemapEntry{
			Vaddr: proto.Uint64(0x10000000 + 2*n*largePageSize), NrPages: proto.Uint64(each), CompatNrPages: proto.Uint32(each), Flags: proto.Uint32(pageIsPresent),
		})
	}
	for _, message := range messages {
		text, err := proto.Marshal(message)
		if err != nil {
			return nil, err
		}
		image = append(binary.LittleEndian.AppendUint32(image, uint32(len(text))), text...)
	}
	return image, nil
}

// pages reads pages that have their number at the beginning.
type pages struct {
	next uint64
	left []byte
	page [largePageSize]byte
}

func (p *pages) Read(to []byte) (int, error) {
	if len(p.left) == 0 {
		p.next++
		binary.LittleEndian.PutUint64(p.page[:], p.next)
		p.left = p.page[:]
	}
	n := copy(to, p.left)
	p.left = p.left[n:]
	return n, nil
}
