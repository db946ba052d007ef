// Package cpu knows which features of a CPU matter to a process that goes on with another one.
package cpu

import (
	"os"
	"slices"
	"strings"
)

// Features returns the features of the node's CPUs that programs can use, by the names of
// /proc/cpuinfo, sorted. It returns nil if they are not known: the kernel of an architecture
// need not tell them.
func Features() []string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil
	}
	return parse(string(text))
}

// parse returns the features that all CPUs have: the scheduler moves a process from one to
// another.
func parse(cpuinfo string) []string {
	var common []string
	for line := range strings.Lines(cpuinfo) {
		name, value, _ := strings.Cut(line, ":")
		has := strings.Fields(value)
		switch strings.TrimSpace(name) {
		case "flags": // x86
			has = slices.DeleteFunc(has, func(flag string) bool { return !isForPrograms(flag) })
		case "Features": // ARM: all of them are for programs.
		default:
			continue
		}
		if common == nil {
			common = has
		}
		common = slices.DeleteFunc(common, func(flag string) bool { return !slices.Contains(has, flag) })
	}
	slices.Sort(common)
	return slices.Compact(common)
}

// isForPrograms reports whether a flag of an x86 CPU is an instruction set, or state that the
// kernel keeps for each thread. All others are of concern to the kernel only.
func isForPrograms(flag string) bool {
	return slices.Contains(instructions, flag) || slices.ContainsFunc(families, func(family string) bool { return strings.HasPrefix(flag, family) })
}

// instructions are flags of x86 CPUs, oldest first, and families are beginnings of others.
var (
	instructions = []string{
		"fpu", "cx8", "cmov", "mmx", "fxsr", "sse", "sse2", "3dnow", "3dnowext", "rdtscp", // AMD and Intel until 2003
		"pni", "cx16", "lahf_lm", "ssse3", "sse4_1", "sse4_2", "sse4a", "abm", "popcnt", "aes", "pclmulqdq", // until 2010
		"xsave", "avx", "f16c", "fma", "fma4", "xop", "tbm", "rdrand", "fsgsbase", // until 2012
		"movbe", "avx2", "bmi1", "bmi2", "hle", "rtm", "adx", "rdseed", "mpx", // until 2015
		"clflushopt", "clwb", "clzero", "sha_ni", "pku", "gfni", "vaes", "vpclmulqdq", "rdpid", // until 2019
		"movdiri", "movdir64b", "enqcmd", "waitpkg", "serialize", "cldemote", "user_shstk", "sha512", "sm3", "sm4", "apx",
	}
	families = []string{"avx512", "avx_", "avx10", "amx_"}
)

// withState are those with registers of their own, which CRIU loads into a restored thread.
var withState = []string{"fpu", "fxsr", "sse", "xsave", "avx", "mpx", "avx512f", "pku", "amx_tile", "user_shstk", "apx", "sve", "sve2", "sme"}

// Missing returns what the CPU of a checkpoint had and another one lacks, sorted. With
// stateOnly that is only what CRIU needs itself: it loads the registers of each thread, and
// does not know which instructions the program uses. Features that are not known are not
// missing.
func Missing(then, now []string, stateOnly bool) []string {
	if len(then) == 0 || len(now) == 0 {
		return nil
	}
	var missing []string
	for _, feature := range then {
		if slices.Contains(now, feature) || stateOnly && !slices.Contains(withState, feature) {
			continue
		}
		missing = append(missing, feature)
	}
	return missing
}
