package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSet(t *testing.T) {
	key := []string{"a", "b c", "key"}
	tests := map[string]struct {
		text, want string
	}{
		"a key is added below the header of its table": {
			"[a.'b c'] # header\nother = 1\n", "[a.'b c'] # header\n  key = 'new' # set by holdfast\nother = 1\n",
		},
		"a value is replaced, and its line kept as a comment": {
			"[a.\"b c\"]\n  key = \"old\" # why\nother = 1\n",
			"[a.\"b c\"]\n# replaced by holdfast:   key = \"old\" # why\n  key = 'new' # set by holdfast\nother = 1\n",
		},
		"a value of several lines is replaced as a whole": {
			"[a.'b c']\nkey = [ # one\n  1,\n] # end\n[z]\n",
			"[a.'b c']\n# replaced by holdfast: key = [ # one\n# replaced by holdfast:   1,\n# replaced by holdfast: ] # end\nkey = 'new' # set by holdfast\n[z]\n",
		},
		"a string of several lines that looks like a header is no header": {
			"text = '''\n[a.'b c']\n'''\n[a.'b c']\n", "text = '''\n[a.'b c']\n'''\n[a.'b c']\n  key = 'new' # set by holdfast\n",
		},
		"a table that is missing is added at the end": {
			"[z]\n", "[z]\n[a.'b c'] # set by holdfast\n  key = 'new' # set by holdfast\n",
		},
		"a file without a line end gets none": {
			"[z]\nx = 1", "[z]\nx = 1\n[a.'b c'] # set by holdfast\n  key = 'new' # set by holdfast",
		},
		"a replaced last line without a line end gets none": {
			"[a.'b c']\nkey = 1", "[a.'b c']\n# replaced by holdfast: key = 1\nkey = 'new' # set by holdfast",
		},
		"a table of dotted keys gets another dotted key": {
			"[a]\n'b c'.other = 1\n", "[a]\n'b c'.other = 1\n'b c'.key = 'new' # set by holdfast\n",
		},
		"a dotted key is replaced in its place": {
			"a.'b c'.key = 1\n", "# replaced by holdfast: a.'b c'.key = 1\na.'b c'.key = 'new' # set by holdfast\n",
		},
		"an empty file gets a table": {
			"", "[a.'b c'] # set by holdfast\n  key = 'new' # set by holdfast\n",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := parse(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.set(setting{key, "new"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got.text); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.text, strip(got.text)); diff != "" {
				t.Errorf("without our lines: %s", diff)
			}
		})
	}
}

func TestSetRefuses(t *testing.T) {
	tests := map[string]struct{ text, says string }{
		"a table within a line":       {"a = {'b c' = {}}\n", "inline table"},
		"a table that is an array":    {"[[a]]\n", "would change other settings"},
		"a value where a table goes":  {"a = 1\n", "inline table"},
		"a mark that is not our own":  {"[z] # set by holdfast\n", "in the way"},
		"a comment with our prefix":   {"# replaced by holdfast: x = 1\n", "in the way"},
		"a table that is part inline": {"[a]\n'b c' = {x = 1}\n", "a.'b c' is an inline table"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := parse(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.set(setting{[]string{"a", "b c", "key"}, "new"})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, %+v; want an error with %q", err, got, tt.says)
			}
		})
	}
}

func TestLiterals(t *testing.T) {
	for _, value := range []any{
		"plain", "with 'quotes'", "\x01\x7f\"\\\n\t'", "", true, int64(-3), 1.0, 0.02, 1e30, []any{"a", []any{int64(1)}},
	} {
		text, err := literal(value)
		if err != nil {
			t.Fatal(err)
		}
		d, err := parse("x = " + text + "\n")
		if err != nil {
			t.Fatalf("%v as %s: %v", value, text, err)
		}
		if diff := cmp.Diff(value, d.tree["x"]); diff != "" {
			t.Errorf("%v as %s: %s", value, text, diff)
		}
	}
	if text, err := literal(table{}); err == nil {
		t.Errorf("a table is %s", text)
	}
}

// corpus returns the files of a directory in testdata.
func corpus(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are %d files: %v", len(files), err)
	}
	all := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = string(text)
	}
	return all
}
