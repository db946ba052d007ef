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
		want    []string // These, and no other ones of the groups of the snapshot API.
		refused string
	}{
		"without a choice there is all":                        {want: slices.Concat(groupSnapshots, snapshots)},
		"one group is chosen":                                  {groups: []string{ours}, want: snapshots},
		"several groups come in the order of their names":      {groups: []string{ours, groups}, want: slices.Concat(groupSnapshots, snapshots)},
		"a group that is chosen twice comes once":              {groups: []string{ours, ours}, want: snapshots},
		"the end of a group's name is not the group":           {groups: []string{"storage.k8s.io"}, refused: `"storage.k8s.io"; there are some of ` + groups},
		"with one group that there is not, nothing is written": {groups: []string{ours, "example.com"}, refused: `"example.com"`},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := Write(&out, row.groups...)
			if row.refused != "" {
				if err == nil || !strings.Contains(err.Error(), row.refused) || out.Len() > 0 {
					t.Errorf("wrote %d bytes and %v; want nothing and %q", out.Len(), err, row.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := slices.DeleteFunc(definitions(t, &out), func(name string) bool { return strings.HasSuffix(name, ".holdfast.io") })
			if !slices.Equal(got, row.want) {
				t.Errorf("wrote %q, want %q", got, row.want)
			}
		})
	}
}

// definitions are the names of all documents, each of which is as its file's
// name says.
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
			t.Errorf("%s %s is among the definitions", crd.GetKind(), crd.GetName())
		}
		plural, group, _ := strings.Cut(crd.GetName(), ".")
		if _, err := files.Open(group + "_" + plural + ".yaml"); err != nil {
			t.Errorf("the file of %s has another name: %v", crd.GetName(), err)
		}
		all = append(all, crd.GetName())
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestAWriteThatFailsIsTold(t *testing.T) {
	if err := Write(full{}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v", err)
	}
}
