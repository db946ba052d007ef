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
		"without secrets nothing changes":         {"no room", nil, "no room"},
		"each occurrence is redacted":             {"hunter2 and hunter2", map[string]string{"p": "hunter2"}, "***stripped*** and ***stripped***"},
		"a trailing newline is ignored":           {"got hunter2.", map[string]string{"p": "hunter2\n"}, "got ***stripped***."},
		"a value in a URL query is redacted":      {"?p=a+b%26c", map[string]string{"p": "a b&c"}, "?p=***stripped***"},
		"a value in a URL path is redacted":       {"/a%20b&c/", map[string]string{"p": "a b&c"}, "/***stripped***/"},
		"a quoted value is redacted":              {`got "one\ntwo"`, map[string]string{"p": "one\ntwo"}, `got "***stripped***"`},
		"a base64 value is redacted":              {"got aHVudGVyMg==", map[string]string{"p": "hunter2"}, "got ***stripped***"},
		"a secret within another one is redacted": {"got hunter2hunter2!", map[string]string{"a": "hunter2", "b": "hunter2hunter2!"}, "got ***stripped***"},
		"a short value stays":                     {"it is on", map[string]string{"p": "on"}, "it is on"},
		"a key stays":                             {"wrong password", map[string]string{"password": "hunter2"}, "wrong password"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := redact(tt.text, tt.secrets); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// An error without a status must not become one with code Unknown, which is a final
// response of a driver.
func TestAnErrorWithoutAStatusStaysWithoutOne(t *testing.T) {
	req := &csipb.CreateVolumeRequest{Secrets: map[string]string{"p": "hunter2"}}
	driver := &Driver{link: &link{path: "/csi.sock"}}
	err := redactError(errors.New("broken pipe at hunter2"), req)
	if _, ok := status.FromError(err); ok || err.Error() != "broken pipe at ***stripped***" {
		t.Errorf("got %v", err)
	}
	if got := driver.fail(CreateVolume, err).Outcome; got != OutcomeUnknown {
		t.Errorf("got outcome %s", got)
	}
	if got := driver.fail(DeleteVolume, redactError(status.Error(codes.Unknown, "no"), req)).Outcome; got != Failed {
		t.Errorf("a response with code Unknown: got outcome %s", got)
	}
}
