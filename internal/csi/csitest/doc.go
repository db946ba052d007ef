// Package csitest is an in-memory CSI driver for tests, crash sweeps and benchmarks, and
// the contract that the controllers expect of every driver.
//
// The [Driver] follows the CSI specification and keeps its state through crashes of its
// own and of its callers. It records what exists, what was called, and which calls about
// one volume overlapped. [Driver.FailNext], [Driver.LoseResponse], [Driver.Block] and
// [Driver.SetHooks] inject faults. Callers connect only through a socket, so that they
// may be other processes.
package csitest
