// Package liveness answers the kubelet's liveness probe of a CSI driver: an HTTP request
// becomes a Probe call. It replaces upstream's livenessprobe and has the same flags.
package liveness
