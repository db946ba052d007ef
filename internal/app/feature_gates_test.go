package app

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestGates(t *testing.T) {
	tests := map[string]struct {
		args            []string
		one, two        bool
		wrong, mentions string
	}{
		"all are on by default":             {nil, true, true, "", ""},
		"what is named is set":              {[]string{"--feature-gates=One=false"}, false, true, "", ""},
		"several in one flag":               {[]string{"--feature-gates=One=false, Two=false"}, false, false, "", ""},
		"several flags":                     {[]string{"--feature-gates=One=false", "--feature-gates=Two=false"}, false, false, "", ""},
		"the last word counts":              {[]string{"--feature-gates=One=false,One=true"}, true, true, "", ""},
		"an empty list of an old manifest":  {[]string{"--feature-gates="}, true, true, "", ""},
		"those for log lines have no say":   {[]string{"--feature-gates=ContextualLogging=true,One=false"}, false, true, "", ""},
		"an unknown gate is told the known": {[]string{"--feature-gates=Three=true"}, true, true, "Three", "One, Two"},
		"a gate without a value":            {[]string{"--feature-gates=One"}, true, true, "One", "=true"},
		"a gate with another value":         {[]string{"--feature-gates=One=maybe"}, true, true, "maybe", "=true"},
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
			if (err != nil) != (tt.wrong != "") || err != nil && (!strings.Contains(err.Error(), tt.wrong) || !strings.Contains(err.Error(), tt.mentions)) {
				t.Errorf("got error %v", err)
			}
			if one != tt.one || two != tt.two {
				t.Errorf("got %v and %v", one, two)
			}
		})
	}
}
