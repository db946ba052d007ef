package kubelet

import (
	"errors"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// logPath finds the log of CRIU in what containerd says: it keeps the log of a dump that
// failed beside the container's bundle.
var logPath = regexp.MustCompile(`/[A-Za-z0-9._/-]+/criu-dump\.log`)

// maxLog is how much is read of the end of a log, in bytes.
const maxLog = 64 << 10

// explain finds the cause of a failure in CRIU's log, if the runtime's text has none.
func (e *Engine) explain(err error) error {
	var answer *runtime.Error
	if !errors.As(err, &answer) || answer.Reason != runtime.DumpFailed {
		return err
	}
	path := logPath.FindString(err.Error())
	if path == "" {
		return err
	}
	lines := errorLines(filepath.Join("/", e.options.Root, filepath.Clean(path)))
	if len(lines) == 0 {
		return err
	}
	text := err.Error() + ": CRIU: " + lines[0]
	return runtime.FailureOf(text, lines...)
}

// errorLines returns the lines of CRIU's log that are errors, of none if it cannot be read:
// it only explains what failed.
func errorLines(path string) []string {
	file, err := openArchive(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > maxLog {
		if _, err := file.Seek(-maxLog, io.SeekEnd); err != nil {
			return nil
		}
	}
	text, err := io.ReadAll(io.LimitReader(file, maxLog))
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if _, message, ok := strings.Cut(line, "Error ("); ok {
			lines = append(lines, "Error ("+strings.TrimSpace(message))
		}
	}
	return lines
}
