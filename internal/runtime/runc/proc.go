package runc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	text, err := os.ReadFile(procFile(pid, "stat"))
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

// statusValue returns a line of /proc/PID/status, without its name.
func statusValue(pid int, name string) (string, error) {
	text, err := os.ReadFile(procFile(pid, "status"))
	if err != nil {
		return "", fmt.Errorf("reading the status of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("/proc/%d/status has no %s", pid, name)
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
