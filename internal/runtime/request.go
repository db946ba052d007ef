package runtime

import "regexp"

var validID = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)

// CheckRequest checks what every engine requires of a call of Checkpoint: an ID that can be
// the name of a file, and different containers of one pod, each with its ID.
func CheckRequest(id string, containers []Container) error {
	if !validID.MatchString(id) {
		return Errorf(DumpFailed, "%q cannot be the ID of a checkpoint: up to 128 letters, digits, dots, dashes "+
			"and underscores, and no dot at its start", id)
	}
	if len(containers) == 0 {
		return Errorf(DumpFailed, "checkpoint %s names no container", id)
	}
	seen := map[string]bool{}
	for _, c := range containers {
		if err := checkContainer(id, c); err != nil {
			return err
		}
		if c.PodUID != containers[0].PodUID {
			return Errorf(DumpFailed, "checkpoint %s names containers of the pods %s and %s: they must be of one",
				id, containers[0].Pod, c.Pod)
		}
		if seen[c.Name] || seen[c.ID] {
			return Errorf(DumpFailed, "checkpoint %s names container %s twice", id, c.Name)
		}
		seen[c.Name], seen[c.ID] = true, true
	}
	return nil
}

func checkContainer(id string, c Container) error {
	for what, value := range map[string]string{
		"its ID": c.ID, "its name": c.Name, "its pod": c.Pod, "the UID of its pod": c.PodUID, "its namespace": c.Namespace,
	} {
		if value == "" {
			return Errorf(DumpFailed, "container %q of checkpoint %s lacks %s", c.Name, id, what)
		}
	}
	return nil
}
