package kubelet

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

var container = runtime.Container{
	Namespace: "default", Pod: "web", PodUID: "5c3f2d7a-0000-4000-8000-000000000001", Name: "main",
	ID: strings.Repeat("0123456789abcdef", 4),
}

const (
	containerdSpec = `{"annotations":{"io.kubernetes.cri.sandbox-namespace":"default","io.kubernetes.cri.sandbox-name":"web",` +
		`"io.kubernetes.cri.sandbox-uid":"5c3f2d7a-0000-4000-8000-000000000001","io.kubernetes.cri.container-name":"main"}}`
	criSpec = `{"annotations":{` +
		`"io.kubernetes.cri-o.Annotations":"{\"io.kubernetes.pod.uid\":\"5c3f2d7a-0000-4000-8000-000000000001\"}",` +
		`"io.kubernetes.cri-o.Labels":"{\"io.kubernetes.pod.namespace\":\"default\",\"io.kubernetes.pod.name\":\"web\",` +
		`\"io.kubernetes.container.name\":\"main\"}"}}`
)

func config(t *testing.T, id string) string {
	t.Helper()
	text, err := json.Marshal(map[string]string{
		"id": id, "rootfsImageName": "example.com/counter:1", "rootfsImageRef": "example.com/counter@sha256:abc",
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pack makes an archive of headers, with contents as long as they say.
func pack(t *testing.T, entries ...*tar.Header) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, header := range entries {
		content := header.Uname // used by files in these tests
		header.Uname = ""
		if header.Typeflag == tar.TypeReg {
			header.Size = int64(len(content))
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); header.Typeflag == tar.TypeReg && err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func file(name, content string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Uname: content}
}

// complete are the entries of a complete archive.
func complete(t *testing.T, more ...*tar.Header) []*tar.Header {
	t.Helper()
	return append([]*tar.Header{
		file("config.dump", config(t, container.ID)), file("spec.dump", containerdSpec), file("checkpoint/inventory.img", "x"),
	}, more...)
}

func TestReadArchive(t *testing.T) {
	t.Parallel()
	whole := pack(t, complete(t, file("container.log", strings.Repeat("x", 1000)))...)
	withoutEnd := whole[:len(whole)-1024]
	link := func(kind byte) *tar.Header {
		return &tar.Header{Name: "link", Typeflag: kind, Linkname: "/etc/shadow"}
	}
	tests := map[string]struct {
		archive []byte
		err     string
	}{
		"a complete archive":                         {whole, ""},
		"names with ./ and directories":              {pack(t, complete(t, &tar.Header{Name: "./checkpoint/", Typeflag: tar.TypeDir, Mode: 0o700}, file("./x", "y"))...), ""},
		"the end is cut off":                         {withoutEnd, "cut off"},
		"half of the end is cut off":                 {whole[:len(whole)-512], "cut off"},
		"cut off in a file":                          {whole[:len(whole)-1800], "unexpected EOF"},
		"cut off between a file and the next header": {whole[:1000], "cut off"},
		"cut off in a header":                        {whole[:1300], "unexpected EOF"},
		"empty":                                      {nil, "cut off"},
		"no archive":                                 {bytes.Repeat([]byte("x"), 2048), "invalid tar header"},
		"zeros behind the end":                       {append(bytes.Clone(whole), make([]byte, 8192)...), ""},
		"the rest of a longer archive":               {append(bytes.Clone(whole), whole...), "overwritten"},
		"a symbolic link":                            {pack(t, complete(t, link(tar.TypeSymlink))...), "neither a file nor a directory"},
		"a hard link":                                {pack(t, complete(t, link(tar.TypeLink))...), "neither a file nor a directory"},
		"a device":                                   {pack(t, complete(t, link(tar.TypeBlock))...), "neither a file nor a directory"},
		"a pipe":                                     {pack(t, complete(t, link(tar.TypeFifo))...), "neither a file nor a directory"},
		"an absolute name":                           {pack(t, complete(t, file("/etc/passwd", ""))...), "no name of a file"},
		"a name with ..":                             {pack(t, complete(t, file("checkpoint/../../x", ""))...), "no name of a file"},
		"a name with a backslash":                    {pack(t, complete(t, file(`checkpoint\x`, ""))...), "no name of a file"},
		"a very long name":                           {pack(t, complete(t, file(strings.Repeat("x/", 3000)+"x", ""))...), "no name of a file"},
		"the same name twice":                        {pack(t, complete(t, file("./spec.dump", "{}"))...), "comes twice"},
		"no config.dump":                             {pack(t, complete(t)[1:]...), "config.dump is missing"},
		"no spec.dump":                               {pack(t, complete(t)[0], complete(t)[2]), "spec.dump is missing"},
		"no images of CRIU":                          {pack(t, complete(t)[:2]...), "inventory.img is missing"},
		"a config.dump that is no JSON":              {pack(t, file("config.dump", "x"), complete(t)[1], complete(t)[2]), "reading config.dump"},
		"a spec.dump that is no JSON":                {pack(t, complete(t)[0], file("spec.dump", "x"), complete(t)[2]), "reading spec.dump"},
		"a config.dump of more than its limit":       {pack(t, file("config.dump", strings.Repeat(" ", maxMetadata+1))), "config.dump has"},
		"annotations of CRI-O that are not JSON":     {pack(t, complete(t)[0], file("spec.dump", `{"annotations":{"io.kubernetes.cri-o.Labels":"x"}}`), complete(t)[2]), "cri-o.Labels"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "x.tar")
			if err := os.WriteFile(path, test.archive, 0o600); err != nil {
				t.Fatal(err)
			}
			contents, err := readArchive(path)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Fatalf("readArchive() = %+v, %v, want %q", contents, err, test.err)
			}
			if err == nil && (contents.imageName != "example.com/counter:1" || contents.imageDigest != "sha256:abc") {
				t.Errorf("the image is %q %q", contents.imageName, contents.imageDigest)
			}
		})
	}
}

func TestBoundsOfAnArchive(t *testing.T) {
	t.Parallel()
	var names nameSet
	var err error
	header := func(prefix string, i int) *tar.Header {
		return &tar.Header{Name: prefix + strconv.Itoa(i), Typeflag: tar.TypeReg}
	}
	names.seen = map[string]bool{}
	for i := range maxEntries + 1 {
		if _, err = names.add(header("", i)); err != nil && i < maxEntries {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
	if err == nil {
		t.Error("there is no limit on entries")
	}
	names = nameSet{seen: map[string]bool{}}
	for i := range 2 * maxNames / 4000 {
		if _, err = names.add(header(strings.Repeat("x", 4000), i)); err != nil {
			break
		}
	}
	if err == nil || names.bytes > maxNames+maxName {
		t.Errorf("the names have %d bytes, %v", names.bytes, err)
	}
}

func TestAnArchiveThatIsALinkIsNotOpened(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(path, pack(t, complete(t)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, path+".link"); err != nil {
		t.Fatal(err)
	}
	if _, err := readArchive(path + ".link"); err == nil {
		t.Error("the link was followed")
	}
}

func TestCheckIdentity(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		id, spec string
		change   func(*runtime.Container)
		want     runtime.Reason // "" for none
	}{
		"containerd":                       {id: container.ID, spec: containerdSpec},
		"CRI-O":                            {id: container.ID, spec: criSpec},
		"an archive without the ID":        {id: "", spec: criSpec},
		"another pod of the same name":     {container.ID, containerdSpec, func(c *runtime.Container) { c.PodUID = "x" }, runtime.SourcePodReplaced},
		"another pod of CRI-O":             {container.ID, criSpec, func(c *runtime.Container) { c.PodUID = "x" }, runtime.SourcePodReplaced},
		"a container that was restarted":   {container.ID, containerdSpec, func(c *runtime.Container) { c.ID = "x" }, runtime.ContainerNotRunning},
		"another namespace":                {container.ID, containerdSpec, func(c *runtime.Container) { c.Namespace = "x" }, runtime.DumpFailed},
		"another container of the pod":     {container.ID, criSpec, func(c *runtime.Container) { c.Name = "x" }, runtime.DumpFailed},
		"an archive without annotations":   {container.ID, `{}`, nil, runtime.DumpFailed},
		"an archive without the pod's UID": {container.ID, strings.Replace(containerdSpec, "sandbox-uid", "x", 1), nil, runtime.SourcePodReplaced},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c contents
			if err := c.parse([]byte(config(t, test.id)), []byte(test.spec)); err != nil {
				t.Fatal(err)
			}
			want := container
			if test.change != nil {
				test.change(&want)
			}
			err := c.checkIdentity(want)
			if test.want == "" && err != nil || test.want != "" && (err == nil || runtime.ReasonOf(err) != test.want) {
				t.Errorf("checkIdentity() = %v, want %q", err, test.want)
			}
		})
	}
}

// FuzzReadArchive reads archives that somebody has tampered with: no input makes it panic, or
// return a name that leaves the checkpoint.
func FuzzReadArchive(f *testing.F) {
	seed := &testing.T{}
	f.Add(pack(seed, complete(seed)...))
	f.Add(pack(seed, complete(seed, &tar.Header{Name: "checkpoint/", Typeflag: tar.TypeDir})...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, archive []byte) {
		err := walkArchive(bytes.NewReader(archive), func(e *entry) error {
			if !filepath.IsLocal(e.name) || e.size < 0 || e.end < e.start+e.size {
				t.Errorf("entry %q has %d bytes from %d to %d", e.name, e.size, e.start, e.end)
			}
			_, err := io.Copy(io.Discard, e)
			return err
		})
		if err == nil && int64(len(archive)) < 1024 {
			t.Errorf("%d bytes are a complete archive", len(archive))
		}
	})
}
