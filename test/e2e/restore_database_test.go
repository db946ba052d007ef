package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/world"
)

const databaseImage = "devcluster.local/postgresql:1"

// databaseUser lets PostgreSQL run as root, which it refuses: without CAP_SYS_RESOURCE, which
// the machine of the tests may lack, CRIU can dump root's processes only.
const databaseUser = "int geteuid(void) { return 999; } int getuid(void) { return 999; }"

// databasePod is a PostgreSQL with its files in an emptyDir volume, its shared memory in
// anonymous, SysV and POSIX segments (in /dev/shm), and a client that stays connected: %[1]s is
// the name of the pod, %[2]s the directory of the programs, %[3]s the node and %[4]s the
// annotations.
const databasePod = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: default, annotations: {%[4]s}}
spec:
  nodeName: %[3]s
  terminationGracePeriodSeconds: 0
  initContainers:
  - name: init
    image: ` + databaseImage + `
    command: [%[2]s/initdb, --pgdata=/data/pg, --auth=trust, --username=postgres, --no-sync, --locale=C]
    securityContext: {runAsUser: 999, runAsGroup: 999}
    volumeMounts: &data [{name: data, mountPath: /data}]
  containers:
  - name: main
    image: ` + databaseImage + `
    command: [%[2]s/postgres, -D, /data/pg, -k, /data, -B, 16MB, -c, dynamic_shared_memory_type=posix]
    env: [{name: LD_PRELOAD, value: /user.so}]
    volumeMounts: *data
  - name: client
    image: ` + databaseImage + `
    command: [/bin/sh, -c, "until %[2]s/pg_isready -h 127.0.0.1; do sleep 0.1; done;
      sleep 100000 | %[2]s/psql 'host=127.0.0.1 user=postgres application_name=client'"]
  volumes: [{name: data, emptyDir: {}}]
`

// loadDatabase loads an image with the PostgreSQL of this machine, and returns the directory
// of its programs.
func (w *checkpointWorld) loadDatabase(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		t.Fatalf("this machine has no PostgreSQL (%v): apt-get install postgresql", err)
	}
	bin := found[len(found)-1]
	version := filepath.Base(filepath.Dir(bin))
	dir := t.TempDir()
	passwd, busybox, user := filepath.Join(dir, "passwd"), filepath.Join(dir, "busybox"), filepath.Join(dir, "user.so")
	must(t, os.WriteFile(user+".c", []byte(databaseUser), 0o644))
	must(t, exec.CommandContext(t.Context(), "gcc", "-shared", "-o", user, user+".c").Run())
	must(t, os.WriteFile(passwd, []byte("root:x:0:0::/:/bin/sh\npostgres:x:999:999::/:/bin/sh\n"), 0o644))
	must(t, os.WriteFile(busybox, []byte(w.Run(t, w.Nodes[0], "cat", "/usr/bin/busybox")), 0o755))
	files := map[string]string{"/etc/passwd": passwd, "/user.so": user, "/bin/sh": busybox, "/bin/sleep": busybox}
	for _, name := range []string{"postgres", "initdb", "psql", "pg_isready"} {
		addProgram(t, files, filepath.Join(bin, name))
	}
	for _, name := range []string{"plpgsql.so", "dict_snowball.so", "pg_buffercache.so"} {
		addProgram(t, files, filepath.Join(filepath.Dir(bin), "lib", name))
	}
	for _, dir := range []string{filepath.Join("/usr/share/postgresql", version), "/usr/share/zoneinfo"} {
		addFiles(t, files, dir)
	}
	w.LoadImage(t, databaseImage, files)
	return bin
}

var libraryPath = regexp.MustCompile(`(/\S+) \(0x`)

// addProgram adds a program or library with all libraries that it needs.
func addProgram(t *testing.T, files map[string]string, path string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ldd", path).Output()
	must(t, err)
	files[path] = path
	for _, match := range libraryPath.FindAllStringSubmatch(string(out), -1) {
		files[match[1]] = match[1]
	}
}

// addFiles adds what is in a directory. Links become the files to which they lead.
func addFiles(t *testing.T, files map[string]string, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			return nil //nolint:nilerr // A link that leads nowhere is not in the image.
		}
		if info, err := os.Stat(target); err == nil && info.Mode().IsRegular() {
			files[path] = target
		}
		return err
	}))
}

// A database is the PostgreSQL of a pod.
type database struct {
	*checkpointWorld
	bin, pod string
}

// query returns what the database answers.
func (d database) query(t *testing.T, sql string) string {
	t.Helper()
	return strings.TrimSpace(d.kubectl(t, "exec", d.pod, "-c", "main", "--", d.bin+"/psql", "-h", "127.0.0.1", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-Atqc", sql))
}

// start starts the database in a pod.
func (d database) start(t *testing.T, node, from string) {
	t.Helper()
	annotations := ""
	if from != "" {
		annotations = v1alpha1.AnnotationRestoreFrom + ": " + from
	}
	d.apply(t, fmt.Sprintf(databasePod, d.pod, d.bin, node, annotations))
	if from != "" {
		d.waitRestored(t, d.pod, corev1.ConditionTrue, v1alpha1.ReasonRestored)
	}
	d.kubectl(t, "wait", "pod/"+d.pod, "--for=condition=Ready", "--timeout="+world.Timeout.String())
	d.kubectl(t, "exec", d.pod, "-c", "client", "--", "/bin/sh", "-c", "until "+d.bin+"/pg_isready -h 127.0.0.1; do sleep 0.1; done")
}

// session returns the process that serves the client.
func (d database) session(t *testing.T) (pid string) {
	t.Helper()
	return d.query(t, `do $$ begin
		while not exists (select from pg_stat_activity where application_name = 'client') loop perform pg_sleep(0.1); perform pg_stat_clear_snapshot(); end loop;
	end $$; select string_agg(pid::text, ',') from pg_stat_activity where application_name = 'client'`)
}

// A database is brought back in place, and is the same process in a pod on another node: with
// its files, its shared memory and its caches, and without its sessions.
func (w *checkpointWorld) testDatabase(t *testing.T, storage *v1alpha1.CheckpointStorage) {
	before := database{w, w.loadDatabase(t), "database"}
	before.start(t, w.Nodes[0], "")
	before.query(t, `create extension pg_buffercache; create table t as select generate_series(1, 10000) as n`)
	const started = `select pg_postmaster_start_time()`
	const cached = `select count(*) > 30 from pg_buffercache where relfilenode = pg_relation_filenode('t')`
	wantStarted, session := before.query(t, started), before.session(t)

	w.create(t, checkpointNamespace, "database", func(s *v1alpha1.CheckpointSpec) {
		s.Target.PodName, s.Storage, s.EstablishedTCP = "database", storage, v1alpha1.CloseTCP
	})
	checkpoint := w.waitReady(t, "database")
	if got, want := checkpoint.Status.Containers[0].Volumes, []string{"data", "/dev/shm"}; !slices.Equal(got, want) {
		t.Errorf("the Checkpoint has the volumes %q, want %q", got, want)
	}
	before.query(t, `drop table t; checkpoint`)
	w.kubectl(t, "annotate", "pod", "database", v1alpha1.AnnotationRestoreFrom+"=database")
	w.waitRestored(t, "database", corev1.ConditionTrue, v1alpha1.ReasonRestored)
	if got := before.query(t, `select count(*) from t`); got != "10000" {
		t.Errorf("in place: the table has %s rows", got)
	}

	after := database{w, before.bin, "database-copy"}
	after.start(t, w.Nodes[1], "database")
	if got := after.query(t, cached); got != "t" {
		t.Errorf("the table is not in the cache of the restored database: %s", got)
	}
	if got := after.query(t, started); got != wantStarted {
		t.Errorf("the restored database says that it was started at %s, want %s", got, wantStarted)
	}
	if got := after.session(t); got == session || strings.Contains(got, ",") {
		t.Errorf("the sessions of the client are %s, want another one than %s", got, session)
	}
	after.query(t, `insert into t values (0); checkpoint`)
	if got := after.query(t, `set max_parallel_workers_per_gather = 2; set force_parallel_mode = on; select count(*), sum(n) from t`); got != "10001|50005000" {
		t.Errorf("the table has %s", got)
	}
}
