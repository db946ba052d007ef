// Package crash is the crash sweep. It tests that nothing leaks and nothing gets stuck,
// whenever a process dies.
//
//	controllers (real processes) ──HTTP──▶ proxy ──▶ API server (real)
//	      └──────────socket──────────▶ driver that keeps score
//
// Proxy and driver number the writes and the calls of a scenario: its points. One run
// without a fault finds them. Then the sweep runs the scenario once for every point and
// every fault there: the process is killed right before or right after it, or lives and
// the response is lost. After a kill a new process starts. Each run must end with
// exactly what its users want, in the cluster and at the driver; see
// docs/internals/crash.md.
package crash
