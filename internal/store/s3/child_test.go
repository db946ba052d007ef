package s3

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/storetest"
	"github.com/holdfast-io/holdfast/test/s3server"
)

// childVariable makes this test binary a process that writes to a bucket: it has the
// server's URL and the bucket.
const childVariable = "S3_TEST_CHILD"

// child writes three parts of an object, says so, and waits to be killed.
func child(place string) {
	url, bucket, _ := strings.Cut(place, "|")
	s, err := New(Config{
		Endpoint: url, Bucket: bucket, DialContext: local.DialContext,
		Credentials: Credentials{AccessKeyID: s3server.AccessKeyID, SecretAccessKey: s3server.SecretAccessKey},
	})
	if err == nil {
		var w store.Writer
		if w, err = s.Create(context.Background(), "a/b"); err == nil {
			_, err = w.Write(storetest.Data("b", 30<<20))
		}
	}
	fmt.Println(err)
	select {}
}

// An upload of a process that is killed never looks complete, and another process finds
// and removes it.
func TestUploadOfAKilledProcess(t *testing.T) {
	t.Parallel()
	bucket := newBucket(t, shared, minio.MakeBucketOptions{})
	s := mustNew(t, configOf(shared, bucket), quick)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+shared.URL()+"|"+bucket)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "<nil>\n" {
		t.Errorf("the process has said %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // It returns that the process was killed.

	_, err = s.Open(t.Context(), "a/b")
	storetest.WantError(t, "opening it", err, store.ErrNotFound)
	storetest.WantList(t, s, "", "a/b (incomplete)")
	if parts, err := shared.Parts(bucket); err != nil || len(parts) == 0 {
		t.Errorf("the server has the parts %q, %v: the test shows nothing", parts, err)
	}
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	storetest.WantList(t, s, "")
	wantNoParts(t, shared, bucket)
}
