package wrapper

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// report says why a call fails: in the log that the caller has named, in the form that runc
// uses, from which the CRI runtime takes the message for its own error, and on standard error.
func report(c call, err error) {
	writeLog(c, "error", err.Error())
	fmt.Fprintln(os.Stderr, err)
}

// warn says in the log what does not stop a container.
func warn(c call, text string) {
	if text != "" {
		writeLog(c, "warning", text)
	}
}

// writeLog appends to the log. That it cannot is no reason to fail for something else.
func writeLog(c call, level, message string) {
	if c.log == "" {
		return
	}
	file, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return
	}
	defer file.Close()
	message = strings.ReplaceAll(strings.TrimSpace(message), "\n", "; ")
	now := time.Now().Format(time.RFC3339)
	if c.logFormat != "json" {
		fmt.Fprintf(file, "time=%q level=%s msg=%q\n", now, level, message)
		return
	}
	_ = json.NewEncoder(file).Encode(map[string]string{"level": level, "msg": message, "time": now}) // Strings always can be encoded.
}
