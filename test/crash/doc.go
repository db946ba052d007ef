// Package crash is the crash sweep: the proof that nothing leaks and nothing
// gets stuck, whenever a process dies.
//
//	controllers (real processes) ──HTTP──▶ proxy ──▶ API server (real)
//	      └──────────socket──────────▶ driver that keeps score
//
// Proxy and driver number the writes and the calls of a scenario: its points.
// One run of the scenario without a fault finds them. Then there is one run
// for every point and every way to strike there: the process is killed right
// before, right after, or it lives and the answer is lost. After a kill a fresh
// process starts. Each run must end with exactly what its users want, in the
// cluster and at the driver; see docs/internals/crash.md.
package crash
