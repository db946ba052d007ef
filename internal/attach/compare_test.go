package attach

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

func TestCompare(t *testing.T) {
	here := publication{"vol", "id-of-node"}
	tests := map[string]struct {
		changes      []func(*seen) // of the one VolumeAttachment; nil is none
		meanwhile    bool          // it has changed while the driver was asked
		listed       []publication
		contradicted bool
		dangling     []publication
	}{
		"attached, and the driver says so":                      {[]func(*seen){recorded, attachedNow}, false, []publication{here}, false, nil},
		"attached, and the driver says not":                     {[]func(*seen){recorded, attachedNow}, false, nil, true, nil},
		"not attached, and the driver says it is":               {[]func(*seen){recorded}, false, []publication{here}, true, nil},
		"not attached, and the driver says so":                  {[]func(*seen){recorded}, false, nil, false, nil},
		"what has changed meanwhile is not judged":              {[]func(*seen){recorded, attachedNow}, true, nil, false, nil},
		"without a record the volume and the node are asked":    {[]func(*seen){attachedNow}, false, nil, true, nil},
		"without a record and a node nothing can be said":       {[]func(*seen){attachedNow, func(s *seen) { s.attachment.Spec.NodeName = "gone" }}, false, nil, false, nil},
		"a volume of ours that nobody tells of dangles":         {nil, false, []publication{here}, false, []publication{here}},
		"also on a node that is gone":                           {nil, false, []publication{{"vol", "gone"}}, false, []publication{{"vol", "gone"}}},
		"also one without a PersistentVolume on a node of ours": {nil, false, []publication{{"other", "id-of-node"}}, false, []publication{{"other", "id-of-node"}}},
		"but not what is another cluster's":                     {nil, false, []publication{{"other", "elsewhere"}}, false, nil},
		"nor what an attachment that is going tells of":         {[]func(*seen){recorded, deleting, attachedNow}, false, []publication{here}, false, nil},
		"where it was attached it dangles not, where else it does": {
			[]func(*seen){recorded, attachedNow}, false, []publication{here, {"vol", "gone"}}, false, []publication{{"vol", "gone"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			for _, change := range tt.changes {
				change(&s)
			}
			c := &census{
				listed: publications{}, volumes: map[string]*corev1.PersistentVolume{"pv": fresh().volume}, nodes: map[string]string{"node": "id-of-node"},
			}
			if tt.changes != nil {
				c.before, c.after = []storagev1.VolumeAttachment{*s.attachment}, []storagev1.VolumeAttachment{*s.attachment}
			}
			if tt.meanwhile {
				c.after[0].ResourceVersion = "2"
			}
			for _, p := range tt.listed {
				c.listed[p] = true
			}
			got := c.compare()
			if (len(got.contradicted) == 1) != tt.contradicted {
				t.Errorf("contradicted are %v", got.contradicted)
			}
			if len(got.dangling) != len(tt.dangling) {
				t.Errorf("dangling are %v", got.dangling)
			}
			for p := range got.dangling {
				if !slices.Contains(tt.dangling, p) {
					t.Errorf("%v dangles", p)
				}
			}
		})
	}
}
