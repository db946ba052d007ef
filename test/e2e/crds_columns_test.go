package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// Users type the short names, and see the columns of kubectl get.
func TestSnapshotCRDsHaveUpstreamsNamesAndColumns(t *testing.T) {
	t.Parallel()
	c := cluster.New(t)
	world.InstallCRDs(t, c.Config)
	const snapshots, groups = "snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io"
	for _, row := range []struct {
		group, plural, short, columns string
		versions                      []string
		namespaced, status            bool
	}{
		{
			group: snapshots, plural: "volumesnapshots", short: "vs", versions: []string{"v1"}, namespaced: true, status: true,
			columns: "Name ReadyToUse SourcePVC SourceSnapshotContent RestoreSize SnapshotClass SnapshotContent CreationTime Age",
		},
		{
			group: snapshots, plural: "volumesnapshotcontents", short: "vsc vscs", versions: []string{"v1"}, status: true,
			columns: "Name ReadyToUse RestoreSize DeletionPolicy Driver VolumeSnapshotClass VolumeSnapshot VolumeSnapshotNamespace Age",
		},
		{
			group: snapshots, plural: "volumesnapshotclasses", short: "vsclass vsclasses", versions: []string{"v1"},
			columns: "Name Driver DeletionPolicy Age",
		},
		{
			group: groups, plural: "volumegroupsnapshots", short: "vgs", versions: []string{"v1", "v1beta2", "v1beta1"}, namespaced: true, status: true,
			columns: "Name ReadyToUse VolumeGroupSnapshotClass VolumeGroupSnapshotContent CreationTime Age",
		},
		{
			group: groups, plural: "volumegroupsnapshotcontents", short: "vgsc vgscs", versions: []string{"v1", "v1beta2", "v1beta1"}, status: true,
			columns: "Name ReadyToUse DeletionPolicy Driver VolumeGroupSnapshotClass VolumeGroupSnapshotNamespace VolumeGroupSnapshot Age",
		},
		{
			group: groups, plural: "volumegroupsnapshotclasses", short: "vgsclass vgsclasses", versions: []string{"v1", "v1beta2", "v1beta1"},
			columns: "Name Driver DeletionPolicy Age",
		},
	} {
		t.Run(row.plural, func(t *testing.T) {
			if got := servedVersions(t, c, row.group); !slices.Equal(got, row.versions) {
				t.Errorf("versions %q of %s are served, the preferred one first; want %q", got, row.group, row.versions)
			}
			for _, version := range row.versions {
				found := discoverResources(t, c, row.group+"/"+version)
				if r := found[row.plural]; strings.Join(r.ShortNames, " ") != row.short || r.Namespaced != row.namespaced {
					t.Errorf("in %s: namespaced %t, short names %q", version, r.Namespaced, r.ShortNames)
				}
				if _, ok := found[row.plural+"/status"]; ok != row.status {
					t.Errorf("in %s: the status subresource is %t", version, ok)
				}
				if got := printedColumns(t, c, row.group+"/"+version+"/"+row.plural); got != row.columns {
					t.Errorf("in %s the columns are\n%s, not\n%s", version, got, row.columns)
				}
			}
		})
	}
}

// servedVersions returns the versions of a group, the preferred one first.
func servedVersions(t *testing.T, c *cluster.Cluster, group string) []string {
	t.Helper()
	all, err := c.Client.Discovery().ServerGroups()
	must(t, err)
	var versions []string
	for _, g := range all.Groups {
		if g.Name == group {
			for _, v := range g.Versions {
				versions = append(versions, v.Version)
			}
		}
	}
	return versions
}

func discoverResources(t *testing.T, c *cluster.Cluster, groupVersion string) map[string]metav1.APIResource {
	t.Helper()
	list, err := c.Client.Discovery().ServerResourcesForGroupVersion(groupVersion)
	must(t, err)
	all := map[string]metav1.APIResource{}
	for _, r := range list.APIResources {
		all[r.Name] = r
	}
	return all
}

// printedColumns returns the names of the columns that "kubectl get" prints.
func printedColumns(t *testing.T, c *cluster.Cluster, path string) string {
	t.Helper()
	text, err := c.Client.Discovery().RESTClient().Get().AbsPath("/apis", path).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Param("limit", "1").DoRaw(t.Context())
	must(t, err)
	var table metav1.Table
	must(t, json.Unmarshal(text, &table))
	names := make([]string, 0, len(table.ColumnDefinitions))
	for _, column := range table.ColumnDefinitions {
		names = append(names, column.Name)
	}
	return strings.Join(names, " ")
}
