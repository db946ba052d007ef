package csi

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Bounds of what is accepted from a driver, so that a faulty one cannot use up the memory
// of this process or of the API server.
const (
	// maxListBytes limits one page of a list. Drivers that list all volumes in one page
	// need some hundred bytes for each.
	maxListBytes = 32 << 20
	// maxResponseBytes limits any other response.
	maxResponseBytes = 4 << 20
	// maxPages limits a list.
	maxPages = 100_000
	// maxMessageBytes limits the message of an error and the details in one log line.
	maxMessageBytes = 1024
	// maxLoggedBytes limits a request or a response in the log.
	maxLoggedBytes = 16 << 10
)

// responseLimit returns the maximum size of a method's response in bytes.
func responseLimit(m Method) int {
	switch m {
	case ListVolumes, ListSnapshots:
		return maxListBytes
	default:
		return maxResponseBytes
	}
}

// limitResponse is the interceptor that sets the maximum size of a response.
func limitResponse(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error { //nolint:revive // The signature is gRPC's.
	return next(ctx, method, req, reply, cc, append(opts, grpc.MaxCallRecvMsgSize(responseLimit(MethodOf(method))))...)
}

// tooLarge returns what is wrong with a response that gRPC did not read because of its
// size. gRPC reports it with a code that a driver returns if it has done nothing, but this
// driver has succeeded.
func tooLarge(method Method, err error) (reason string) {
	s, ok := status.FromError(err)
	if !ok || s.Code() != codes.ResourceExhausted || !strings.HasPrefix(s.Message(), "grpc: received message") {
		return ""
	}
	return fmt.Sprintf("it has more than %d MiB", responseLimit(method)>>20)
}
