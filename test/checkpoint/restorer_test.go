package checkpoint

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/app"
	"github.com/holdfast-io/holdfast/internal/archive"
	agent "github.com/holdfast-io/holdfast/internal/node"
	"github.com/holdfast-io/holdfast/internal/runtime/runc"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// restorerArg is the argument with which this test program fetches one checkpoint and issues
// the ticket of a container, as the agent does.
const restorerArg = "checkpoint-restorer"

// A fetching is what a restorer process is to do.
type fetching struct {
	saving
	Digest string
	// Tickets is the directory of the tickets on the node, and Root the node's root.
	Tickets, Root string
	UID, Request  string // of the pod
	Container     string
}

// A fetched checkpoint is what a restorer process has measured.
type fetched struct {
	ticket.Fetched
	RSS int64 // bytes of the process at its peak
}

// restorerMain does what a fetching says and prints what it has measured.
func restorerMain(text string) int {
	var f fetching
	return answer(text, &f, func() (any, error) { return f.do(context.Background()) })
}

func (f *fetching) do(ctx context.Context) (*fetched, error) {
	app.LimitGarbage(agent.MaxGarbage) // as the agent does
	engine, err := runc.New(f.Config)
	if err != nil {
		return nil, err
	}
	place, err := ticket.At(filepath.Join(f.Root, f.Tickets), f.UID, f.Container)
	if err != nil {
		return nil, err
	}
	from, err := f.open()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(place.DataDir(), 0o700); err != nil {
		return nil, err
	}
	start := time.Now()
	object, err := from.Open(ctx, f.ID)
	if err != nil {
		return nil, err
	}
	defer object.Close()
	reader, err := archive.Open(object, object.Size(), archive.OpenOptions{})
	if err != nil {
		return nil, err
	}
	t := ticket.Ticket{Request: f.Request, Decision: ticket.Restore, Expires: time.Now().Add(timeout)}
	if err := f.unpack(ctx, engine, reader, place, &t.Fetched); err != nil {
		return nil, err
	}
	unpacked := time.Now()
	unix.Sync()
	t.Fetched.Seconds, t.Fetched.SyncSeconds, t.Fetched.At = unpacked.Sub(start).Seconds(), time.Since(unpacked).Seconds(), time.Now()
	if err := place.Issue(t); err != nil {
		return nil, err
	}
	peak, err := peakRSS()
	return &fetched{t.Fetched, peak}, err
}

// unpack writes the files, those of the memory into RAM if that is permitted.
func (f *fetching) unpack(ctx context.Context, engine *runc.Engine, reader *archive.Reader, place *ticket.Container, into *ticket.Fetched) error {
	large := map[string]int64{}
	for _, file := range reader.Files() {
		if name, isImage := strings.CutPrefix(file.Name, ticket.ImagesName+"/"); isImage && file.Size >= 1<<20 {
			large[name] = file.Size
		}
	}
	images := filepath.Join(f.Tickets, f.UID, f.Container, "data", ticket.ImagesName)
	var err error
	if into.OnDisk, err = engine.HoldImages(ctx, f.Tickets, images, large, 8<<20); err != nil {
		return err
	}
	prepared := map[string]int64{}
	if into.OnDisk == "" {
		for name, size := range large {
			prepared[ticket.ImagesName+"/"+name] = size
		}
	}
	found, err := reader.Unpack(ctx, place.DataDir(), prepared)
	if err == nil && found.Digest != f.Digest {
		err = fmt.Errorf("the digest is %s, not %s", found.Digest, f.Digest)
	}
	return err
}
