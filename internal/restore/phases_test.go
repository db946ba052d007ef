package restore

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/ticket"
)

func TestDescribe(t *testing.T) {
	outcome := &ticket.Outcome{
		Started: now.Add(3 * time.Second), Ended: now.Add(4500 * time.Millisecond), RootfsSeconds: 0.25, RestoreSeconds: 1,
	}
	fetched := &ticket.Ticket{Fetched: ticket.Fetched{Seconds: 2, SyncSeconds: 0.5, At: now}}
	onDisk := &ticket.Ticket{Fetched: ticket.Fetched{At: outcome.Started, OnDisk: "there is too little"}}
	tests := map[string]struct {
		container container
		want      string
	}{
		"the whole is from the fetch to the first instruction": {container{name: "main", claimed: fetched, outcome: outcome},
			"container main in 7.00 s (fetched and verified 2.00 s, written to disk 0.50 s, started by the kubelet 3.00 s, root file system 0.25 s, CRIU 1.00 s), its memory in RAM"},
		"why the memory is not in RAM is said": {container{name: "main", claimed: onDisk, outcome: outcome},
			"container main in 1.50 s (fetched and verified 0.00 s, written to disk 0.00 s, started by the kubelet 0.00 s, root file system 0.25 s, CRIU 1.00 s), " +
				"its memory on disk: there is too little"},
		"a ticket of an older agent has no times": {container{name: "main", claimed: &ticket.Ticket{}, outcome: outcome},
			"container main in 1.50 s (fetched and verified 0.00 s, written to disk 0.00 s, started by the kubelet 0.00 s, root file system 0.25 s, CRIU 1.00 s)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.container.describe(); got != tt.want {
				t.Errorf("describe() = %q, want %q", got, tt.want)
			}
			var names []string
			for _, p := range tt.container.phases() {
				names = append(names, p.name)
			}
			if !slices.Equal(names, phaseNames) {
				t.Errorf("the phases are %q, and the metrics start with %q", names, phaseNames)
			}
		})
	}
}
