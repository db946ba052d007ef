package csi

import (
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

const (
	rwo  = corev1.ReadWriteOnce
	rwop = corev1.ReadWriteOncePod
	rox  = corev1.ReadOnlyMany
	rwx  = corev1.ReadWriteMany

	singleWriter       = csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	singleSingleWriter = csipb.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	singleMultiWriter  = csipb.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	multiReader        = csipb.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	multiWriter        = csipb.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	noMode             = csipb.VolumeCapability_AccessMode_UNKNOWN
)

type (
	kubeModes = []corev1.PersistentVolumeAccessMode
	csiModes  = []csipb.VolumeCapability_AccessMode_Mode
)

// Each row has the mode for a driver without and with SINGLE_NODE_MULTI_WRITER.
func TestAccessMode(t *testing.T) {
	tests := map[string]struct {
		modes         kubeModes
		without, with csipb.VolumeCapability_AccessMode_Mode // noMode is an error
	}{
		"one pod": {kubeModes{rwop}, singleWriter, singleSingleWriter},
		"one pod with any other mode is an error": {kubeModes{rwop, rwo}, noMode, noMode},
		"many writers":                                  {kubeModes{rwx}, multiWriter, multiWriter},
		"many writers win over many readers":            {kubeModes{rox, rwx}, multiWriter, multiWriter},
		"many writers win over one node":                {kubeModes{rwo, rwx}, multiWriter, multiWriter},
		"many writers win over all":                     {kubeModes{rwo, rox, rwx}, multiWriter, multiWriter},
		"many readers":                                  {kubeModes{rox}, multiReader, multiReader},
		"one node":                                      {kubeModes{rwo}, singleWriter, singleMultiWriter},
		"a mode that is named twice is one":             {kubeModes{rwo, rwo}, singleWriter, singleMultiWriter},
		"one node and many readers are the first":       {kubeModes{rwo, rox}, singleWriter, singleMultiWriter},
		"many readers and one node are the first":       {kubeModes{rox, rwo}, multiReader, multiReader},
		"many readers and an unknown mode are an error": {kubeModes{rox, rwo, "ReadSometimes"}, noMode, noMode},
		"many readers and one pod are an error":         {kubeModes{rox, rwop}, noMode, noMode},
		"no mode is an error":                           {nil, noMode, noMode},
		"an unknown mode is an error":                   {kubeModes{"ReadSometimes"}, noMode, noMode},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for multi, want := range map[bool]csipb.VolumeCapability_AccessMode_Mode{false: tt.without, true: tt.with} {
				if got, err := AccessMode(tt.modes, multi); got != want || (err != nil) != (want == noMode) {
					t.Errorf("SINGLE_NODE_MULTI_WRITER %v: got %s, %v", multi, got, err)
				}
			}
		})
	}
}

func TestAccessModes(t *testing.T) {
	tests := map[string]struct {
		modes         kubeModes
		without, with csiModes // nil is an error
	}{
		"each mode is mapped on its own, in order": {kubeModes{rwx, rwo}, csiModes{multiWriter, singleWriter}, csiModes{multiWriter, singleMultiWriter}},
		"many readers and one node are valid":      {kubeModes{rwo, rox}, csiModes{singleWriter, multiReader}, csiModes{singleMultiWriter, multiReader}},
		"one pod":                                  {kubeModes{rwop}, csiModes{singleWriter}, csiModes{singleSingleWriter}},
		"one pod with any other mode is an error":  {kubeModes{rwo, rwop}, nil, nil},
		"no mode is an error":                      {nil, nil, nil},
		"an unknown mode is an error":              {kubeModes{rwo, "ReadSometimes"}, nil, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for multi, want := range map[bool]csiModes{false: tt.without, true: tt.with} {
				got, err := AccessModes(tt.modes, multi)
				if diff := cmp.Diff(want, got); diff != "" || (err != nil) != (want == nil) {
					t.Errorf("SINGLE_NODE_MULTI_WRITER %v: error %v, %s", multi, err, diff)
				}
			}
		})
	}
}
