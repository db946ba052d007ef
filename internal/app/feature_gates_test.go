package app

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestFeatureGates(t *testing.T) {
	tests := map[string]struct {
		args              []string
		one, two          bool
		wantErr, mentions string
	}{
		"all gates are on by default":                   {nil, true, true, "", ""},
		"a named gate is set":                           {[]string{"--feature-gates=One=false"}, false, true, "", ""},
		"several gates in one flag":                     {[]string{"--feature-gates=One=false, Two=false"}, false, false, "", ""},
		"several flags":                                 {[]string{"--feature-gates=One=false", "--feature-gates=Two=false"}, false, false, "", ""},
		"the last value counts":                         {[]string{"--feature-gates=One=false,One=true"}, true, true, "", ""},
		"an empty list is accepted":                     {[]string{"--feature-gates="}, true, true, "", ""},
		"gates of the logging library have no effect":   {[]string{"--feature-gates=ContextualLogging=true,One=false"}, false, true, "", ""},
		"the error for an unknown gate lists the known": {[]string{"--feature-gates=Three=true"}, true, true, "Three", "One, Two"},
		"a gate without a value is an error":            {[]string{"--feature-gates=One"}, true, true, "One", "=true"},
		"a gate with a value that is not a boolean":     {[]string{"--feature-gates=One=maybe"}, true, true, "maybe", "=true"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var one, two bool
			var g FeatureGates
			g.Add("One", &one, "")
			g.Add("Two", &two, "")
			fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
			g.AddFlags(fs)
			err := fs.Parse(tt.args)
			if (err != nil) != (tt.wantErr != "") || err != nil && (!strings.Contains(err.Error(), tt.wantErr) || !strings.Contains(err.Error(), tt.mentions)) {
				t.Errorf("got error %v", err)
			}
			if one != tt.one || two != tt.two {
				t.Errorf("got %v and %v", one, two)
			}
		})
	}
}
