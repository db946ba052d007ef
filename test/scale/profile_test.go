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

// Profiles are for whoever looks for the reason of a figure. What is allocated is
// sampled; with GODEBUG=memprofilerate=1 in the environment all of it is there,
// and no figure of memory or processor means anything.
var profiles = flag.String("profiles", "", "directory for profiles of memory, in the order in which they are taken: before and after all that is measured")

// profileFlags are what a process needs for that.
func profileFlags() []string {
	if *profiles == "" {
		return nil
	}
	return []string{"--enable-pprof"}
}

// profile keeps what the process holds and what it has allocated so far.
func (s *measuredProcess) profile(t *testing.T) {
	t.Helper()
	if *profiles == "" {
		return
	}
	s.profilesTaken++
	for _, path := range []string{"heap?gc=1", "allocs"} { // What was allocated is known up to the last collection.
		kind, _, _ := strings.Cut(path, "?")
		name := fmt.Sprintf("%s-%s-%d-%s.pb.gz", strings.ReplaceAll(t.Name(), "/", "-"), s.Role(), s.profilesTaken, kind)
		if err := saveURL(filepath.Join(*profiles, name), "http://"+s.endpoint+"/debug/pprof/"+path); err != nil {
			t.Fatal(err)
		}
	}
}

// saveURL writes what is found at an address into a file.
func saveURL(file, address string) error {
	answer, err := http.Get(address)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(file, all, 0o644)
}
