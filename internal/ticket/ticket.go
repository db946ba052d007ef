package ticket

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultDir is the directory of a node.
const DefaultDir = "/var/lib/holdfast/restore"

// Annotation asks for a restore, on a pod. The OCI specification of the pod's containers has
// it too, where the CRI runtime passes it on.
const Annotation = "checkpoint.example.com/restore-from"

// Names of the files.
const (
	ticketFile   = "ticket.json"
	claimedFile  = "claimed.json"
	outcomeFile  = "outcome.json"
	progressFile = "progress"
	dataDir      = "data"
)

// ImagesName is the name of the directory of CRIU's images in a checkpoint.
const ImagesName = "checkpoint"

// Versions of the files. The agent and the wrapper are installed separately: a file of a
// newer version is rejected, and one of an older version read. Version 2 of tickets has the
// volumes and the IPC objects of the pod, which a wrapper must not leave out.
const (
	ticketVersion  = 2
	outcomeVersion = 1
)

// ErrNone means that there is no such file.
var ErrNone = errors.New("there is none")

// A Decision is what becomes of the next start of a container.
type Decision string

// The decisions.
const (
	// Restore restores the container from the files in the data directory.
	Restore Decision = "Restore"
	// StartFresh starts the container as if nobody had asked for a restore.
	StartFresh Decision = "StartFresh"
	// Fail lets the start fail with the ticket's message.
	Fail Decision = "Fail"
)

// A Ticket is the decision about the next start of one container.
type Ticket struct {
	Version int `json:"version"`
	// PodUID and Container are whose ticket it is. They are compared with its place.
	PodUID    string `json:"podUID"`
	Container string `json:"container"`
	// Request is the value of the pod's annotation that the ticket answers.
	Request  string   `json:"request"`
	Decision Decision `json:"decision"`
	// Message is for people: why the start fails.
	Message string `json:"message,omitempty"`
	// Digest is that of the archive from which the files are, such as "sha256:9f86…".
	Digest string `json:"digest,omitempty"`
	// CloseTCP closes the connections of the checkpoint.
	CloseTCP bool `json:"closeTCP,omitempty"`
	// Compatible permits differences between the specifications that CRIU does not mind.
	Compatible bool `json:"compatible,omitempty"`
	// Volumes are those of the container whose files are put back before it is restored.
	Volumes []Volume `json:"volumes,omitempty"`
	// SharesIPC is whether containers that are not restored use the IPC namespace of the pod.
	SharesIPC bool `json:"sharesIPC,omitempty"`
	// Again is whether the container was restored before, and is whenever it ends, and FreshAfter
	// whether it starts afresh when that fails. The agent needs it when the policy is gone.
	Again      bool `json:"again,omitempty"`
	FreshAfter bool `json:"freshAfter,omitempty"`
	// Expires is when a ticket to restore is of no use any more.
	Expires time.Time `json:"expires,omitzero"`
	// Fetched is how the files came to the node.
	Fetched Fetched `json:"fetched,omitzero"`
}

// Fetched is what it took to bring the files of a checkpoint to the node.
type Fetched struct {
	// Seconds are those of the fetch, in which the files are verified and unpacked.
	// SyncSeconds are those until they survive a power cut.
	Seconds     float64 `json:"seconds"`
	SyncSeconds float64 `json:"syncSeconds"`
	// At is when they were there.
	At time.Time `json:"at"`
	// OnDisk is why the images of the memory are not in RAM; "" if they are.
	OnDisk string `json:"onDisk,omitempty"`
}

// An Outcome is what became of a claimed ticket.
type Outcome struct {
	Version int    `json:"version"`
	Request string `json:"request"`
	// ContainerID is the container that was, or was to be, restored.
	ContainerID string `json:"containerID"`
	// Error is why the restore failed; "" if it succeeded. It names the differences if the
	// specification does not fit.
	Error string `json:"error,omitempty"`
	// Incompatible is whether the same restore fails whenever it is repeated.
	Incompatible bool `json:"incompatible,omitempty"`
	// Interrupted is whether the wrapper was told to stop, or was killed: nothing is known about
	// the restore.
	Interrupted bool `json:"interrupted,omitempty"`
	// Started and Ended are of the wrapper's work. RootfsSeconds and RestoreSeconds are the
	// parts of it: the changes to the root file system, and CRIU.
	Started        time.Time `json:"started"`
	Ended          time.Time `json:"ended"`
	RootfsSeconds  float64   `json:"rootfsSeconds"`
	RestoreSeconds float64   `json:"restoreSeconds"`
}

// A Container is the place of one container's files.
type Container struct {
	dir               string
	podUID, container string
	// claim is the claimed ticket, which is locked for as long as it is open.
	claim *os.File
}

// At returns the place of a container's files in a directory. Names that are not plain names
// of files are rejected: they come from an OCI specification.
func At(dir, podUID, container string) (*Container, error) {
	for _, name := range []string{podUID, container} {
		if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") || len(name) > 253 {
			return nil, fmt.Errorf("%q is not the UID of a pod or the name of a container", name)
		}
	}
	return &Container{dir: filepath.Join(dir, podUID, container), podUID: podUID, container: container}, nil
}

// Dir is the directory of the container's files.
func (c *Container) Dir() string { return c.dir }

// DataDir is the directory of the checkpoint's files.
func (c *Container) DataDir() string { return filepath.Join(c.dir, dataDir) }

// ImagesDir is the directory of CRIU's images. It may be in RAM.
func (c *Container) ImagesDir() string { return filepath.Join(c.DataDir(), ImagesName) }

// HasData reports whether the files of a ticket are there. Images in RAM do not survive the
// node: nothing is left of them but the directory.
func (c *Container) HasData() bool {
	if _, err := os.Stat(filepath.Join(c.DataDir(), "spec.dump")); err != nil {
		return false
	}
	images, err := os.ReadDir(c.ImagesDir())
	return errors.Is(err, fs.ErrNotExist) || len(images) > 0
}

// Ticket returns the ticket, [ErrNone] if there is none.
func (c *Container) Ticket() (*Ticket, error) { return c.readTicket(ticketFile) }

// Claimed returns the ticket that the wrapper has taken, [ErrNone] if there is none.
func (c *Container) Claimed() (*Ticket, error) { return c.readTicket(claimedFile) }

func (c *Container) readTicket(name string) (*Ticket, error) {
	t := &Ticket{}
	if err := c.read(name, t, &t.Version, ticketVersion); err != nil {
		return nil, fmt.Errorf("reading a ticket: %w", err)
	}
	if t.PodUID != c.podUID || t.Container != c.container {
		return nil, fmt.Errorf("reading a ticket: %s is the one of container %s of pod %s", filepath.Join(c.dir, name), t.Container, t.PodUID)
	}
	return t, nil
}

// Issue writes a ticket. It replaces one that was not claimed, and whatever is left of former
// ones: what they were claimed for and what became of it.
func (c *Container) Issue(t Ticket) error {
	if err := c.Forget(); err != nil {
		return err
	}
	t.Version, t.PodUID, t.Container = ticketVersion, c.podUID, c.container
	if err := c.write(ticketFile, t); err != nil {
		return fmt.Errorf("issuing a ticket: %w", err)
	}
	return nil
}

// Withdraw removes the ticket. It is [ErrNone] if there is none, because it was claimed.
func (c *Container) Withdraw() error {
	err := os.Remove(filepath.Join(c.dir, ticketFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	return err
}

// Forget removes the ticket, a claimed one and its outcome.
func (c *Container) Forget() error {
	for _, name := range []string{ticketFile, claimedFile, outcomeFile} {
		if err := os.Remove(filepath.Join(c.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a former ticket: %w", err)
		}
	}
	return nil
}

// Claim takes the ticket: nobody else can, not even the same container when it starts again.
// It is [ErrNone] if there is no ticket. One to start afresh, or to fail, is not taken: it is
// valid until the agent issues another one. The claimed ticket is locked until the process
// ends.
func (c *Container) Claim(now time.Time) (*Ticket, error) {
	t, err := c.Ticket()
	if err != nil || t.Decision != Restore {
		return t, err
	}
	if err := c.take(); err != nil {
		return nil, fmt.Errorf("claiming a ticket: %w", err)
	}
	// What was taken may be another ticket than the one that was read.
	if t, err = c.Claimed(); err != nil {
		return nil, err
	}
	if now.After(t.Expires) {
		return nil, fmt.Errorf("claiming a ticket: it has expired at %s", t.Expires.Format(time.RFC3339))
	}
	return t, nil
}

// take locks the ticket and renames it: one that is claimed and not locked is that of a
// wrapper that has ended.
func (c *Container) take() error {
	from := filepath.Join(c.dir, ticketFile)
	file, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	if err == nil {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = os.Rename(from, filepath.Join(c.dir, claimedFile))
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	c.claim = file
	return nil
}

// Release gives up the lock on the claimed ticket, as the end of the process does.
func (c *Container) Release() error {
	if c.claim == nil {
		return nil
	}
	err := c.claim.Close()
	c.claim = nil
	return err
}

// IsClaimInUse reports whether a wrapper works on the claimed ticket.
func (c *Container) IsClaimInUse() (bool, error) {
	file, err := os.Open(filepath.Join(c.dir, claimedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening a claimed ticket: %w", err)
	}
	defer file.Close()
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("locking a claimed ticket: %w", err)
	}
	return false, nil
}

// Outcome returns what became of the claimed ticket, [ErrNone] if that is not known.
func (c *Container) Outcome() (*Outcome, error) {
	o := &Outcome{}
	if err := c.read(outcomeFile, o, &o.Version, outcomeVersion); err != nil {
		return nil, fmt.Errorf("reading the outcome of a restore: %w", err)
	}
	return o, nil
}

// SetOutcome records what became of the claimed ticket.
func (c *Container) SetOutcome(o Outcome) error {
	o.Version = outcomeVersion
	if err := c.write(outcomeFile, o); err != nil {
		return fmt.Errorf("recording the outcome of a restore: %w", err)
	}
	return nil
}

// Progress returns how far the agent is, in words; "" if it has not said so.
func (c *Container) Progress() string {
	text, err := os.ReadFile(filepath.Join(c.dir, progressFile))
	if err != nil {
		return "" // It is only for people.
	}
	return strings.TrimSpace(string(text))
}

// SetProgress says how far the agent is.
func (c *Container) SetProgress(text string) error {
	if err := c.writeBytes(progressFile, []byte(text)); err != nil {
		return fmt.Errorf("recording the progress of a restore: %w", err)
	}
	return nil
}

// maxFile is more than any of the files has, in bytes.
const maxFile = 1 << 20

// read reads a file, whose version is then in found.
func (c *Container) read(name string, into any, found *int, newest int) error {
	path := filepath.Join(c.dir, name)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Size() > maxFile {
		return fmt.Errorf("%s is too large: %w", path, err)
	}
	if err := json.NewDecoder(file).Decode(into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if *found < 1 || *found > newest {
		return fmt.Errorf("%s has version %d, and this program knows those up to %d: install the agent and holdfast-runtime of the same version", path, *found, newest)
	}
	return nil
}

func (c *Container) write(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return c.writeBytes(name, text)
}

// writeBytes replaces a file at once. It makes the directory.
func (c *Container) writeBytes(name string, text []byte) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(c.dir, "."+name+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // It is gone if everything went well.
	_, err = file.Write(text)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), filepath.Join(c.dir, name))
}
