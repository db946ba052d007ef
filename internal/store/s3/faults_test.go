package s3

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/storetest"
	"github.com/holdfast-io/holdfast/test/s3server"
)

// throughCutter returns a store whose connections to the shared server a cutter disturbs.
func throughCutter(t *testing.T, l limits, disturb func(up bool, data []byte) bool) (*Store, *cutter) {
	t.Helper()
	bucket := newBucket(t, shared, minio.MakeBucketOptions{})
	c := startCutter(t, shared.Address, disturb)
	config := configOf(shared, bucket)
	config.Endpoint = "http://" + c.address()
	return mustNew(t, config, l), c
}

// direct returns the same store without the cutter.
func direct(t *testing.T, s *Store) *Store {
	t.Helper()
	return mustNew(t, configOf(shared, s.config.Bucket), quick)
}

func TestUploadSurvivesCutConnections(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	var next atomic.Int64
	next.Store(3 << 20)
	s, c := throughCutter(t, quick, func(up bool, data []byte) bool {
		if !up || sent.Add(int64(len(data))) < next.Load() {
			return true
		}
		next.Add(5 << 20) // In the middle of parts 1, 1 again, 2 and so on.
		return sent.Load() > 40<<20
	})
	data := storetest.Data("a", 30<<20)
	storetest.MustPut(t, s, "a", data)
	if c.cuts.Load() < 5 {
		t.Errorf("%d connections were cut, want at least 5: the test shows nothing", c.cuts.Load())
	}
	storetest.WantData(t, direct(t, s), "a", data)
	storetest.WantList(t, direct(t, s), "", "a")
	wantNoParts(t, shared, s.config.Bucket)
}

// If the response to the request that makes an object visible is lost, the repeated
// request fails because of the object that it has written itself.
func TestLostResponseToCompletion(t *testing.T) {
	for name, tt := range map[string]struct {
		size   int
		marker string // in the request whose response is lost
	}{
		"of a multipart upload": {20 << 20, "<CompleteMultipartUpload"},
		"of a small object":     {100, "PUT /"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var armed, lost atomic.Bool
			s, c := throughCutter(t, quick, func(up bool, data []byte) bool {
				if up && !lost.Load() && bytes.Contains(data, []byte(tt.marker)) {
					armed.Store(true)
				}
				if !up && armed.CompareAndSwap(true, false) {
					lost.Store(true)
					return false
				}
				return true
			})
			data := storetest.Data("a", tt.size)
			storetest.MustPut(t, s, "a", data)
			if c.cuts.Load() != 1 {
				t.Errorf("%d responses were lost, want 1", c.cuts.Load())
			}
			storetest.WantData(t, s, "a", data)
			storetest.WantError(t, "writing it again", storetest.Put(t.Context(), s, "a", data), store.ErrExists)
		})
	}
}

// If the caller gives up while it is not known whether the object is visible, the object
// is removed.
func TestGivingUpDuringCompletion(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var armed, lost atomic.Bool
	s, _ := throughCutter(t, quick, func(up bool, data []byte) bool {
		if up && !lost.Load() && bytes.Contains(data, []byte("PUT /")) {
			armed.Store(true)
		}
		if !up && armed.CompareAndSwap(true, false) {
			lost.Store(true)
			cancel()
			return false
		}
		return true
	})
	storetest.WantError(t, "writing", storetest.Put(ctx, s, "a", []byte("data")), context.Canceled)
	if !lost.Load() {
		t.Error("no response was lost: the test shows nothing")
	}
	storetest.WantList(t, direct(t, s), "")
}

// What is damaged on its way is rejected by the server and sent again.
func TestDamagedPartIsSentAgain(t *testing.T) {
	t.Parallel()
	var damaged atomic.Bool
	data := storetest.Data("a", 20<<20)
	piece := data[12<<20 : 12<<20+64]
	s, _ := throughCutter(t, quick, func(up bool, sent []byte) bool {
		if i := bytes.Index(sent, piece); up && i >= 0 && damaged.CompareAndSwap(false, true) {
			sent[i] ^= 1
		}
		return true
	})
	storetest.MustPut(t, s, "a", data)
	if !damaged.Load() {
		t.Error("nothing was damaged: the test shows nothing")
	}
	storetest.WantData(t, direct(t, s), "a", data)
}

func TestDownloadSurvivesCutConnections(t *testing.T) {
	t.Parallel()
	var received, next atomic.Int64
	next.Store(1 << 20)
	s, c := throughCutter(t, quick, func(up bool, data []byte) bool {
		if up || received.Add(int64(len(data))) < next.Load() {
			return true
		}
		next.Add(3 << 20)
		return false
	})
	data := storetest.Data("a", 20<<20)
	storetest.MustPut(t, direct(t, s), "a", data)
	o, err := s.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	r, err := o.NewReader(5, int64(len(data))-5)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, data[5:]) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	at := make([]byte, 9<<20)
	if n, err := o.ReadAt(at, 7<<20); err != nil || !bytes.Equal(at[:n], data[7<<20:16<<20]) {
		t.Errorf("ReadAt: %d bytes, %v", n, err)
	}
	if c.cuts.Load() < 6 {
		t.Errorf("%d connections were cut, want at least 6: the test shows nothing", c.cuts.Load())
	}
}

func TestObjectThatIsReplacedWhileItIsRead(t *testing.T) {
	t.Parallel()
	s := newOn(t, shared)
	storetest.MustPut(t, s, "a", storetest.Data("old", 1000))
	o, err := s.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	_, err = o.ReadAt(make([]byte, 10), 0)
	storetest.WantError(t, "reading a deleted object", err, store.ErrNotFound)
	storetest.MustPut(t, s, "a", storetest.Data("new", 1000))
	_, err = o.ReadAt(make([]byte, 10), 0)
	storetest.WantError(t, "reading a replaced object", err, store.ErrNotFound)
}

// A server that takes connections and then does nothing does not hold a caller.
func TestServerThatStalls(t *testing.T) {
	t.Parallel()
	l := quick
	l.stall, l.retry, l.cleanup = 100*time.Millisecond, 0, time.Second
	var stalled atomic.Bool
	ended := make(chan struct{})
	s, _ := throughCutter(t, l, func(bool, []byte) bool {
		if stalled.Load() {
			<-ended
			return false
		}
		return true
	})
	t.Cleanup(func() { close(ended) })
	w := storetest.MustCreate(t.Context(), t, s, "a", storetest.Data("a", 100))
	storetest.MustPut(t, direct(t, s), "b", storetest.Data("b", 20<<20))
	o, err := s.Open(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	stalled.Store(true)
	_, readErr := o.ReadAt(make([]byte, 100), 0)
	_, openErr := s.Open(t.Context(), "b")
	for what, err := range map[string]error{
		"check": s.Check(t.Context()), "open": openErr, "read": readErr, "commit": w.Commit(),
		"list": s.List(t.Context(), "", nil), "delete": s.Delete(t.Context(), "a"),
	} {
		storetest.WantError(t, what, err, store.ErrUnavailable)
		wantText(t, err, errStalled.Error())
	}
}

// A server that stops in the middle of a body is asked again, after it has been silent for
// the time of a stall.
func TestServerThatStallsDuringAPart(t *testing.T) {
	t.Parallel()
	l := quick
	l.stall = 500 * time.Millisecond
	ended := make(chan struct{})
	data := storetest.Data("a", 20<<20)
	piece := data[12<<20 : 12<<20+64]
	var stalls atomic.Int64
	s, _ := throughCutter(t, l, func(up bool, sent []byte) bool {
		if up && bytes.Contains(sent, piece) && stalls.CompareAndSwap(0, 1) {
			<-ended
		}
		return true
	})
	t.Cleanup(func() { close(ended) })
	storetest.MustPut(t, s, "a", data)
	if stalls.Load() != 1 {
		t.Error("the server has not stalled: the test shows nothing")
	}
	storetest.WantData(t, direct(t, s), "a", data)
}

func TestUploadSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	server := s3server.Start(t, s3server.Options{})
	s := newOn(t, server)
	data := storetest.Data("a", 40<<20)
	w := storetest.MustCreate(t.Context(), t, s, "dir/a", data[:18<<20])
	server.Kill()
	written := make(chan error)
	go func() {
		_, err := w.Write(data[18<<20:])
		if err == nil {
			err = w.Commit()
		}
		written <- err
	}()
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	storetest.WantData(t, s, "dir/a", data)
	storetest.WantList(t, s, "", "dir/a")
	wantNoParts(t, server, s.config.Bucket)
}

// A server that is gone is an error after the time for repeated requests, and what the
// upload has left is removed later.
func TestServerThatIsGone(t *testing.T) {
	t.Parallel()
	server := s3server.Start(t, s3server.Options{})
	l := quick
	l.retry, l.cleanup = 100*time.Millisecond, time.Second
	s := mustNew(t, configOf(server, newBucket(t, server, minio.MakeBucketOptions{})), l)
	w := storetest.MustCreate(t.Context(), t, s, "a", storetest.Data("a", 20<<20))
	server.Kill()
	err := w.Commit()
	storetest.WantError(t, "commit", err, store.ErrUnavailable)
	wantText(t, err, "remains until the key is deleted")
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	storetest.WantList(t, s, "", "a (incomplete)")
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	storetest.WantList(t, s, "")
	wantNoParts(t, server, s.config.Bucket)
}

// wantText checks that an error has a text.
func wantText(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("the error %v does not say %q", err, text)
	}
}
