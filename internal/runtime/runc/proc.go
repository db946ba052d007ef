package runc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// startTime returns when a process started, in clock ticks since the start of the node:
// with the number it identifies a process.
func startTime(pid int) (uint64, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	const start = 22 - 3 // of proc(5), counted from the state
	if len(fields) <= start {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields after the name", pid, len(fields))
	}
	return strconv.ParseUint(fields[start], 10, 64)
}

// parentOf returns the parent of a process.
func parentOf(pid int) (int, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(fields[1])
}

// statFields returns the fields of /proc/PID/stat from the state on: before it is the
// name, which may contain anything.
func statFields(pid int) ([]string, error) {
	text, err := readProc(pid, "stat")
	if err != nil {
		return nil, fmt.Errorf("reading the state of process %d: %w", pid, err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return nil, fmt.Errorf("/proc/%d/stat has too few fields", pid)
	}
	return fields, nil
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// readProc reads a file of a process. If the process has ended, the error is
// [os.ErrNotExist], also if it ended while the file was open.
func readProc(pid int, name string) ([]byte, error) {
	text, err := os.ReadFile(procFile(pid, name))
	if errors.Is(err, unix.ESRCH) {
		err = fmt.Errorf("%w: %w", os.ErrNotExist, err)
	}
	return text, err
}

// errNoLine means that a process has no such line in its status.
var errNoLine = errors.New("there is no such line")

// statusBytes returns a size in /proc/PID/status. A process that has ended, and whose
// parent has not waited for it yet, has no memory and no lines about it.
func statusBytes(pid int, name string) (int64, error) {
	value, err := statusValue(pid, name)
	if errors.Is(err, errNoLine) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return kibibytes(value)
}

// statusValue returns a line of /proc/PID/status, without its name, or [errNoLine].
func statusValue(pid int, name string) (string, error) {
	text, err := readProc(pid, "status")
	if err != nil {
		return "", fmt.Errorf("reading the status of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("reading %s of /proc/%d/status: %w", name, pid, errNoLine)
}

// kibibytes reads a value such as "12 kB" and returns bytes.
func kibibytes(text string) (int64, error) {
	number, ok := strings.CutSuffix(text, " kB")
	if !ok {
		return 0, fmt.Errorf("%q is not a number of kB", text)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	return n << 10, err
}

// availableMemory returns how many bytes of memory the node can give to new uses.
func availableMemory() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("reading the memory of the node: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			return kibibytes(strings.TrimSpace(value))
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}
