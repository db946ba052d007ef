package kube

import "strings"

// Truncate shortens a message to so many bytes, and says so. No character is cut in two:
// what is not UTF-8 comes back from the API server as something else.
func Truncate(message string, limit int) string {
	if len(message) <= limit {
		return message
	}
	return strings.ToValidUTF8(message[:limit-3], "") + "..."
}
