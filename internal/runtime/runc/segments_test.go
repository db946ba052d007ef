package runc

import "testing"

func TestMemoryOfAContainer(t *testing.T) {
	const (
		mib     = 1 << 20
		segment = "7f0000000000-7f0000400000 rw-s 00000000 00:01 77 /dev/zero (deleted)\n" // 4 MiB
		end     = "7f0000000000-7f0000100000 rw-s 00300000 00:01 77 /dev/zero (deleted)\n" // the last of them
		file    = "7f1000000000-7f1000800000 r--s 00000000 fe:00 78 /data/a file\n"
		private = "7f2000000000-7f2000800000 rw-p 00000000 00:00 0\n"
	)
	for name, row := range map[string]struct {
		maps            []string // of the processes
		private, shared int64    // MiB
		want            int64    // MiB
	}{
		"a process without shared memory":                  {[]string{private}, 8, 0, 8},
		"shared memory":                                    {[]string{private + segment}, 8, 4, 12},
		"a segment of which little is used":                {[]string{segment}, 0, 1, 1},
		"a segment of many processes is dumped once":       {[]string{segment, segment, segment, segment}, 0, 16, 4},
		"a process that has mapped a part has no other":    {[]string{segment, end}, 0, 5, 4},
		"a segment of which nobody has mapped the start":   {[]string{end, end, end, end, end}, 0, 5, 4},
		"files are not dumped but may hide what is shared": {[]string{segment + file, segment + file}, 0, 8, 8},
	} {
		t.Run(name, func(t *testing.T) {
			u := &usage{private: row.private * mib, shared: row.shared * mib, segments: map[string]int64{}}
			for _, maps := range row.maps {
				if err := addSegments(u.segments, maps); err != nil {
					t.Fatal(err)
				}
			}
			if got := u.memory(); got != row.want*mib {
				t.Errorf("%d bytes, want %d MiB", got, row.want)
			}
		})
	}
	if err := addSegments(map[string]int64{}, "nonsense\n"); err == nil {
		t.Error("nonsense is read")
	}
}
