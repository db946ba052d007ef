package kube

import "strings"

// Truncate shortens a message to limit bytes, with "..." at its end. It does not split a
// character: the API server would replace invalid UTF-8.
func Truncate(message string, limit int) string {
	if len(message) <= limit {
		return message
	}
	return strings.ToValidUTF8(message[:limit-3], "") + "..."
}
