// Package checkpoints is the crash sweep of Checkpoints. It tests that nothing leaks,
// nothing gets stuck and nothing stays frozen, whenever the operator or an agent dies, and
// whatever the API server, the engine and the store answer.
//
//	operator, agents ──HTTP──▶ proxy ──▶ API server (real)
//	      ├── engine of runtimetest, whose node is a directory
//	      └── store: a directory, or a bucket of a real S3 server
//
// Operator and agents are those of the program, in the process of the test. When one is
// killed, every request, every call to its engine and every call to a store fails from
// then on without doing anything, also those that would clean up. When all its work has
// ended, a successor starts, which knows nothing but what is in the cluster and on disk.
//
// The sweep has the form of the one in test/crash: the writes and calls of a run are its
// points. One run without a fault finds them, and the others have a fault at one of them.
// See docs/internals/crash.md.
package checkpoints
