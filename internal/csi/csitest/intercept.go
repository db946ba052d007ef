package csitest

import (
	"context"
	"fmt"
	"path"
	"slices"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// intercept wraps every call: it records the call, checks capabilities, and runs
// faults, hooks and latency.
func (d *Driver) intercept(dead <-chan struct{}) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, work grpc.UnaryHandler) (any, error) {
		call := &Call{Method: csi.MethodOf(info.FullMethod), Request: req}
		if service := path.Dir(info.FullMethod); service == "/csi.v1.Controller" || service == "/csi.v1.GroupController" {
			call.Subject = d.subjectOf(req)
		}
		d.calls.begin(call)
		resp, err := d.handle(ctx, call, dead, work)
		call.Code = status.Code(err)
		d.calls.end(call)
		return resp, err
	}
}

func (d *Driver) handle(ctx context.Context, call *Call, dead <-chan struct{}, work grpc.UnaryHandler) (any, error) {
	if err := d.checkCapability(call.Method); err != nil {
		return nil, err
	}
	if err := d.waitLatency(dead); err != nil {
		return nil, err
	}
	one, hooks := d.faults.next(call.Method), d.hooks.Load()
	if hooks == nil {
		hooks = &Hooks{}
	}
	if err := one.runBefore(dead); err != nil {
		return nil, err
	}
	if hooks.Before != nil {
		if err := hooks.Before(ctx, call.Method, call.Request); err != nil {
			return nil, err
		}
	}
	resp, err := work(ctx, call.Request)
	if hooks.After != nil {
		resp, err = hooks.After(ctx, call.Method, call.Request, cloneResponse(resp, err), err)
	}
	if err = one.runAfter(err); err != nil {
		return nil, err
	}
	return resp, nil
}

// cloneResponse copies a response, which may share memory with the storage, so that
// a hook can change it.
func cloneResponse(resp any, err error) any {
	if message, ok := resp.(proto.Message); ok && err == nil {
		return proto.Clone(message)
	}
	return nil
}

// waitLatency waits for the latency. The caller's deadline does not end it: a
// driver continues its work when the caller is gone.
func (d *Driver) waitLatency(dead <-chan struct{}) error {
	pause := time.Duration(d.latency.Load())
	if pause <= 0 {
		return nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-dead:
		return errCrashed()
	}
}

func errCrashed() error { return status.Error(codes.Unavailable, "the driver crashed") }

// checkCapability rejects calls that need a capability which the driver does not
// announce.
func (d *Driver) checkCapability(method csi.Method) error {
	d.mu.Lock()
	missing := d.missing[method]
	d.mu.Unlock()
	if missing != nil {
		return status.Errorf(codes.Unimplemented, "%s needs capability %s", method, missing)
	}
	return nil
}

// missingCapabilities are the methods that need a capability which the options do
// not have.
func missingCapabilities(opts Options) map[csi.Method]fmt.Stringer {
	missing := make(map[csi.Method]fmt.Stringer)
	for method, needed := range neededController() {
		if !slices.Contains(opts.Controller, needed) {
			missing[method] = needed
		}
	}
	for method, needed := range neededGroup() {
		if !slices.Contains(opts.Group, needed) {
			missing[method] = needed
		}
	}
	for method, needed := range neededNode() {
		if !slices.Contains(opts.Node, needed) {
			missing[method] = needed
		}
	}
	return missing
}

func neededController() map[csi.Method]csipb.ControllerServiceCapability_RPC_Type {
	return map[csi.Method]csipb.ControllerServiceCapability_RPC_Type{
		csi.CreateVolume:              csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.DeleteVolume:              csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerPublishVolume:   csipb.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerUnpublishVolume: csipb.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerExpandVolume:    csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerModifyVolume:    csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME,
		csi.ControllerGetVolume:       csipb.ControllerServiceCapability_RPC_GET_VOLUME,
		csi.GetCapacity:               csipb.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ListVolumes:               csipb.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.CreateSnapshot:            csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.DeleteSnapshot:            csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.GetSnapshot:               csipb.ControllerServiceCapability_RPC_GET_SNAPSHOT,
		csi.ListSnapshots:             csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
	}
}

func neededGroup() map[csi.Method]csipb.GroupControllerServiceCapability_RPC_Type {
	return map[csi.Method]csipb.GroupControllerServiceCapability_RPC_Type{
		csi.CreateVolumeGroupSnapshot: csipb.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT,
		csi.DeleteVolumeGroupSnapshot: csipb.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT,
		csi.GetVolumeGroupSnapshot:    csipb.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT,
	}
}

func neededNode() map[csi.Method]csipb.NodeServiceCapability_RPC_Type {
	return map[csi.Method]csipb.NodeServiceCapability_RPC_Type{
		"NodeStageVolume":    csipb.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		"NodeUnstageVolume":  csipb.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		"NodeGetVolumeStats": csipb.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		"NodeExpandVolume":   csipb.NodeServiceCapability_RPC_EXPAND_VOLUME,
	}
}
