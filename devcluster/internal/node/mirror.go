package node

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// mirrorVariable names the environment's word about the Debian archive.
const mirrorVariable = "DEVCLUSTER_MIRROR"

// mirror is the Debian archive: $DEVCLUSTER_MIRROR, else the first that this
// machine's apt is set up with.
func mirror() (string, error) {
	if m := os.Getenv(mirrorVariable); m != "" {
		return m, nil
	}
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("asking apt-get for a Debian mirror (or set %s): %w", mirrorVariable, err)
	}
	if m, ok := debianIn(string(out)); ok {
		return m, nil
	}
	return "", fmt.Errorf("apt knows no Debian archive: run apt-get update, or set %s, as to http://deb.debian.org/debian", mirrorVariable)
}

// debianIn finds the archive in apt's list of origins and addresses.
func debianIn(list string) (string, bool) {
	for line := range strings.Lines(list) {
		origin, uri, _ := strings.Cut(strings.TrimSpace(line), " ")
		if origin == "Debian" && !strings.Contains(uri, "security") {
			return uri, true
		}
	}
	return "", false
}
