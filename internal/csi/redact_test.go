package csi

import (
	"errors"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestRedact(t *testing.T) {
	tests := map[string]struct {
		text    string
		secrets map[string]string
		want    string
	}{
		"nothing to hide hides nothing":          {"no room", nil, "no room"},
		"a value is hidden wherever it is":       {"hunter2 and hunter2", map[string]string{"p": "hunter2"}, "***stripped*** and ***stripped***"},
		"the newline at its end is not part":     {"got hunter2.", map[string]string{"p": "hunter2\n"}, "got ***stripped***."},
		"a value in a query is hidden":           {"?p=a+b%26c", map[string]string{"p": "a b&c"}, "?p=***stripped***"},
		"a value in a path is hidden":            {"/a%20b&c/", map[string]string{"p": "a b&c"}, "/***stripped***/"},
		"a quoted value is hidden":               {`got "one\ntwo"`, map[string]string{"p": "one\ntwo"}, `got "***stripped***"`},
		"a value as Kubernetes shows it, too":    {"got aHVudGVyMg==", map[string]string{"p": "hunter2"}, "got ***stripped***"},
		"a secret within another one is hidden":  {"got hunter2hunter2!", map[string]string{"a": "hunter2", "b": "hunter2hunter2!"}, "got ***stripped***"},
		"a short value is no word to hide":       {"it is on", map[string]string{"p": "on"}, "it is on"},
		"a key is not a value, and names no one": {"wrong password", map[string]string{"password": "hunter2"}, "wrong password"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := redact(tt.text, tt.secrets); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// An error that is no status would be Unknown as one, and Unknown is a final
// answer of a driver.
func TestAnErrorWithoutAStatusStaysWithoutOne(t *testing.T) {
	req := &csipb.CreateVolumeRequest{Secrets: map[string]string{"p": "hunter2"}}
	driver := &Driver{link: &link{path: "/csi.sock"}}
	err := redactError(errors.New("broken pipe at hunter2"), req)
	if _, ok := status.FromError(err); ok || err.Error() != "broken pipe at ***stripped***" {
		t.Errorf("got %v", err)
	}
	if got := driver.fail(CreateVolume, err).Outcome; got != OutcomeUnknown {
		t.Errorf("got verdict %s", got)
	}
	if got := driver.fail(DeleteVolume, redactError(status.Error(codes.Unknown, "no"), req)).Outcome; got != Failed {
		t.Errorf("an answer without a code of its own: got verdict %s", got)
	}
}
