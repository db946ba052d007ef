package wrapper

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// timerEntry is an entry of files.img: a timer with so many ticks, that expires after so many
// nanoseconds and then at this interval.
func timerEntry(ticks, nanos, interval uint64) []byte {
	timer := []byte{1 << 3, 9, 3<<3 | 2, 2, 0xff, 0xff} // its ID, and a message
	for number, value := range map[uint64]uint64{fieldTicks: ticks, fieldSeconds: 0, fieldNanos: nanos, fieldEvery: 0, fieldEveryNs: interval} {
		timer = binary.AppendUvarint(binary.AppendUvarint(timer, number<<3), value)
	}
	entry := []byte{1 << 3, 15, 2 << 3, 9, fieldTimerfd<<3 | 2, byte(len(timer))}
	return append(entry, timer...)
}

func TestArmTimers(t *testing.T) {
	tests := map[string]struct {
		entry []byte
		armed bool
	}{
		"a timer that repeats and has expired": {timerEntry(3, 0, 20000000), true},
		"one that has not expired":             {timerEntry(0, 5000, 20000000), false},
		"one that was read and is set anew":    {timerEntry(1, 5000, 20000000), false},
		"one that has expired once":            {timerEntry(1, 0, 0), false},
		"one that was stopped":                 {timerEntry(0, 0, 20000000), false},
		"another file":                         {[]byte{1 << 3, 1, 2 << 3, 1, 3<<3 | 2, 1, 0}, false},
		"an entry that is cut":                 {[]byte{1 << 3, 15, fieldTimerfd<<3 | 2, 100, 1}, false},
		"an entry of an unknown kind":          {[]byte{1<<3 | 7, 15}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			image := []byte("headerxx")
			for _, entry := range [][]byte{{1 << 3, 1}, tt.entry, {1 << 3, 2}} {
				image = append(binary.LittleEndian.AppendUint32(image, uint32(len(entry))), entry...)
			}
			images := t.TempDir()
			path := filepath.Join(images, "files.img")
			if err := os.WriteFile(path, image, 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 { // A restore that is repeated changes nothing more.
				if err := armTimers(images); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(path)
			if err != nil || len(got) != len(image) || bytes.Equal(got, image) == tt.armed {
				t.Fatalf("the image is %x, %v, and was %x", got, err, image)
			}
			if !tt.armed {
				return
			}
			timer := fieldsOf(fieldsOf(got[8+4+2+4:])[fieldTimerfd].bytes)
			if timer[fieldNanos].number != 1 || timer[fieldTicks].number != 3 {
				t.Errorf("the timer is %+v", timer)
			}
		})
	}
	for name, image := range map[string][]byte{"without an image": nil, "with an image that is cut": []byte("headerxx\xff\xff\x00\x00a")} {
		t.Run(name, func(t *testing.T) {
			images := t.TempDir()
			if image != nil {
				if err := os.WriteFile(filepath.Join(images, "files.img"), image, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := armTimers(images); err != nil {
				t.Error(err) // The restore says what is wrong.
			}
		})
	}
}
