package wrapper

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// A difference is one between the specification of a checkpoint and that of the container
// that is to be restored.
type difference struct {
	what, then, now string
	// fatal is whether CRIU cannot bear it.
	fatal bool
}

func (d difference) String() string {
	return fmt.Sprintf("%s: %s in the checkpoint, %s in the new container", d.what, d.then, d.now)
}

// compatible returns an error that names every difference that forbids a restore. Relaxed
// permits those that CRIU can bear: the process goes on with what it had in the checkpoint.
func compatible(then, now *spec, relaxed bool) error {
	var texts []string
	for _, d := range differences(then, now) {
		if d.fatal || !relaxed {
			texts = append(texts, d.String())
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return incompatible("the container differs from the one of the checkpoint: %s", strings.Join(texts, "; "))
}

// differences compares what must not differ. Paths of namespaces and control groups, host
// names, sources of mounts and most annotations differ between any two pods.
func differences(then, now *spec) []difference {
	d := differenceList{}
	p, q := then.Process, now.Process
	d.text("image", image(then), image(now))
	d.text("command", strings.Join(p.Args, " "), strings.Join(q.Args, " "))
	d.text("working directory", p.Cwd, q.Cwd)
	d.text("user", fmt.Sprintf("%d:%d", p.User.UID, p.User.GID), fmt.Sprintf("%d:%d", q.User.UID, q.User.GID))
	d.set("supplementary group", names(p.User.AdditionalGIDs), names(q.User.AdditionalGIDs))
	d.flag("terminal", p.Terminal, q.Terminal, true)
	d.flag("no new privileges", p.NoNewPrivileges, q.NoNewPrivileges, false)
	d.flag("read-only root file system", then.Root.Readonly, now.Root.Readonly, false)
	d.flag("seccomp", hasSeccomp(then), hasSeccomp(now), false)
	for _, kind := range slices.Sorted(maps.Keys(union(p.Capabilities, q.Capabilities))) {
		d.set("capability ("+kind+")", values(p.Capabilities[kind]), values(q.Capabilities[kind]))
	}
	d.set("limit", rlimits(then), rlimits(now))
	d.set("device", devices(then), devices(now))
	d.each("namespace", namespaces(then), namespaces(now), true)
	d.mounts(mountsByPlace(then), mountsByPlace(now))
	d.environment(environment(then), environment(now))
	return d
}

type differenceList []difference

func (d *differenceList) add(what, then, now string, fatal bool) {
	*d = append(*d, difference{what: what, then: then, now: now, fatal: fatal})
}

func (d *differenceList) text(what, then, now string) {
	if then != now {
		d.add(what, quote(then), quote(now), false)
	}
}

func (d *differenceList) flag(what string, then, now, fatal bool) {
	words := map[bool]string{true: "yes", false: "no"}
	if then != now {
		d.add(what, words[then], words[now], fatal)
	}
}

// each compares two maps, entry by entry.
func (d *differenceList) each(what string, then, now map[string]string, fatal bool) {
	for _, name := range slices.Sorted(maps.Keys(union(then, now))) {
		a, inThen := then[name]
		b, inNow := now[name]
		if inThen != inNow || a != b {
			d.add(what+" "+name, present(a, inThen), present(b, inNow), fatal)
		}
	}
}

func (d *differenceList) set(what string, then, now map[string]string) {
	d.each(what, then, now, false)
}

// mounts compares mounts. CRIU finds those of the checkpoint by their place in the container,
// and does not mount others.
func (d *differenceList) mounts(then, now map[string]mount) {
	for _, place := range slices.Sorted(maps.Keys(union(then, now))) {
		a, inThen := then[place]
		b, inNow := now[place]
		switch {
		case inThen != inNow:
			d.add("mount "+place, present(a.String(), inThen), present(b.String(), inNow), inThen)
		case a != b:
			d.add("mount "+place, a.String(), b.String(), a.kind != b.kind)
		}
	}
}

// environment compares variables. Their values may be secrets, so they are not told.
func (d *differenceList) environment(then, now map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(union(then, now))) {
		a, inThen := then[name]
		b, inNow := now[name]
		switch {
		case ofPod(name):
		case inThen != inNow:
			d.add("environment variable "+name, present("set", inThen), present("set", inNow), false)
		case a != b:
			d.add("environment variable "+name, "one value", "another one", false)
		}
	}
}

// podVariable matches variables that the kubelet sets for services, which may come and go.
var podVariable = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Z_][A-Z0-9_]*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)
})

// ofPod reports whether a variable differs from pod to pod.
func ofPod(name string) bool { return name == "HOSTNAME" || podVariable().MatchString(name) }

func present(value string, is bool) string {
	switch {
	case !is:
		return "none"
	case value == "":
		return "present"
	default:
		return value
	}
}

// maxQuoted is how much of a text is told, in bytes.
const maxQuoted = 200

func quote(text string) string {
	if len(text) > maxQuoted {
		return fmt.Sprintf("%q…", text[:maxQuoted])
	}
	return fmt.Sprintf("%q", text)
}

func union[V any](a, b map[string]V) map[string]struct{} {
	all := map[string]struct{}{}
	for name := range a {
		all[name] = struct{}{}
	}
	for name := range b {
		all[name] = struct{}{}
	}
	return all
}

func values(list []string) map[string]string {
	set := map[string]string{}
	for _, value := range list {
		set[value] = ""
	}
	return set
}

func names(list []uint32) map[string]string {
	set := map[string]string{}
	for _, value := range list {
		set[fmt.Sprint(value)] = ""
	}
	return set
}

func image(s *spec) string {
	if name, ok := s.Annotations["io.kubernetes.cri-o.ImageName"]; ok {
		return name
	}
	return s.Annotations["io.kubernetes.cri.image-name"]
}

func hasSeccomp(s *spec) bool { return len(s.Linux.Seccomp) > 0 && string(s.Linux.Seccomp) != "null" }

func rlimits(s *spec) map[string]string {
	set := map[string]string{}
	for _, l := range s.Process.Rlimits {
		set[l.Type] = fmt.Sprintf("%d to %d", l.Soft, l.Hard)
	}
	return set
}

func devices(s *spec) map[string]string {
	set := map[string]string{}
	for _, d := range s.Linux.Devices {
		set[d.Path] = fmt.Sprintf("%s %d:%d", d.Type, d.Major, d.Minor)
	}
	return set
}

func namespaces(s *spec) map[string]string {
	set := map[string]string{}
	for _, n := range s.Linux.Namespaces {
		set[n.Type] = "its own"
		if n.Path != "" {
			set[n.Type] = "a joined one"
		}
	}
	return set
}

// A mount is what matters of a mount beside its place in the container.
type mount struct {
	kind     string
	readOnly bool
}

func (m mount) String() string {
	if m.readOnly {
		return m.kind + ", read-only"
	}
	return m.kind + ", writable"
}

func mountsByPlace(s *spec) map[string]mount {
	set := map[string]mount{}
	for _, m := range s.Mounts {
		kind := m.Type
		if slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			kind = "bind"
		}
		set[m.Destination] = mount{kind: kind, readOnly: slices.Contains(m.Options, "ro")}
	}
	return set
}

func environment(s *spec) map[string]string {
	set := map[string]string{}
	for _, variable := range s.Process.Env {
		name, value, _ := strings.Cut(variable, "=")
		set[name] = value
	}
	return set
}
