package scale

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Profiles show the reason for a figure. Allocations are sampled;
// GODEBUG=memprofilerate=1 records all of them, but then no figure of memory or CPU
// time is valid.
var profiles = flag.String("profiles", "", "directory for memory profiles, numbered in order: before and after each measurement")

// profileFlags are the process's flags for profiles.
func profileFlags() []string {
	if *profiles == "" {
		return nil
	}
	return []string{"--enable-pprof"}
}

// profile saves the heap and the allocations of the process so far.
func (s *measuredProcess) profile(t *testing.T) {
	t.Helper()
	if *profiles == "" {
		return
	}
	s.profilesTaken++
	for _, path := range []string{"heap?gc=1", "allocs"} { // Allocations are known up to the last garbage collection.
		kind, _, _ := strings.Cut(path, "?")
		name := fmt.Sprintf("%s-%s-%d-%s.pb.gz", strings.ReplaceAll(t.Name(), "/", "-"), s.Role(), s.profilesTaken, kind)
		if err := saveURL(filepath.Join(*profiles, name), "http://"+s.endpoint+"/debug/pprof/"+path); err != nil {
			t.Fatal(err)
		}
	}
}

// saveURL writes the content of a URL to a file.
func saveURL(file, address string) error {
	response, err := http.Get(address)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(file, all, 0o644)
}
