package crds

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func TestWrite(t *testing.T) {
	const ours, groups = "snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io"
	snapshots := []string{"volumesnapshotclasses." + ours, "volumesnapshotcontents." + ours, "volumesnapshots." + ours}
	groupSnapshots := []string{"volumegroupsnapshotclasses." + groups, "volumegroupsnapshotcontents." + groups, "volumegroupsnapshots." + groups}
	for name, row := range map[string]struct {
		groups  []string
		want    []string // all definitions of the snapshot API that are written
		wantErr string
	}{
		"without groups all are written":            {want: slices.Concat(groupSnapshots, snapshots)},
		"one group":                                 {groups: []string{ours}, want: snapshots},
		"several groups are sorted by name":         {groups: []string{ours, groups}, want: slices.Concat(groupSnapshots, snapshots)},
		"a repeated group is written once":          {groups: []string{ours, ours}, want: snapshots},
		"a suffix of a group's name is unknown":     {groups: []string{"storage.k8s.io"}, wantErr: `"storage.k8s.io"; known are checkpoint.example.com, ` + groups},
		"with one unknown group nothing is written": {groups: []string{ours, "example.com"}, wantErr: `"example.com"`},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := Write(&out, row.groups...)
			if row.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), row.wantErr) || out.Len() > 0 {
					t.Errorf("wrote %d bytes and %v; want nothing and %q", out.Len(), err, row.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := slices.DeleteFunc(definitions(t, &out), func(name string) bool { return !strings.HasSuffix(name, ours) })
			if !slices.Equal(got, row.want) {
				t.Errorf("wrote %q, want %q", got, row.want)
			}
		})
	}
}

// definitions returns the names of all definitions, and checks the names of their files.
func definitions(t *testing.T, text io.Reader) []string {
	t.Helper()
	var all []string
	documents := yaml.NewYAMLReader(bufio.NewReader(text))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		crd := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(document, &crd.Object); err != nil {
			t.Fatal(err)
		}
		if crd.GetKind() != "CustomResourceDefinition" {
			t.Errorf("%s %s is not a CustomResourceDefinition", crd.GetKind(), crd.GetName())
		}
		plural, group, _ := strings.Cut(crd.GetName(), ".")
		if _, err := files.Open(group + "_" + plural + ".yaml"); err != nil {
			t.Errorf("the file of %s has the wrong name: %v", crd.GetName(), err)
		}
		all = append(all, crd.GetName())
	}
}

// failingWriter fails every write.
type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestAWriteErrorIsReturned(t *testing.T) {
	if err := Write(failingWriter{}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v", err)
	}
}
