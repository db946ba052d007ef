package oci

import "bytes"

// argumentOf returns the argument after a flag in /proc/PID/cmdline, "" if there is none.
func argumentOf(line []byte, flag string) string {
	arguments := bytes.Split(line, []byte{0})
	for i := range len(arguments) - 1 {
		if string(arguments[i]) == flag {
			return string(arguments[i+1])
		}
	}
	return ""
}

func trim(text []byte) string { return string(bytes.TrimSpace(text)) }
