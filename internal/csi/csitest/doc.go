// Package csitest is a CSI driver in memory, for tests, crash sweeps and
// benchmarks, and the contract that every driver behind the port must keep.
//
// The [DriverOptions] behaves as the CSI specification asks, keeps its state through
// crashes of its own and of its callers, and knows the score afterwards: what
// exists, what was called, and which calls about one volume overlapped. Faults
// are ordered with [Driver.FailNext], [Driver.LoseAnswer], [Driver.Block] and
// [Driver.SetHooks]. A socket is all that links it to its callers, so that they
// may be other processes.
package csitest
