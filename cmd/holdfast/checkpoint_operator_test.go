package main

import "testing"

// A Checkpoint in the trusted namespace may name pods of all others. Who may say where the
// Lease is must not choose it.
func TestTheTrustedNamespaceIsThatOfThePod(t *testing.T) { // Not parallel: it sets the environment.
	t.Setenv("POD_NAMESPACE", "operators")
	o := &checkpointOperator{}
	o.work.Workers = 1
	command := o.newCommand()
	if err := command.ParseFlags([]string{"--leader-election-namespace=tenant"}); err != nil {
		t.Fatal(err)
	}
	if err := o.complete(command); err != nil {
		t.Fatal(err)
	}
	if o.checkpoint.Namespace != "operators" {
		t.Errorf("the trusted namespace is %q", o.checkpoint.Namespace)
	}
}
