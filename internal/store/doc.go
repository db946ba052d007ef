// Package store is the port to the places where checkpoints are kept.
//
// A [Store] keeps objects under keys. An object is there completely or not at all: what
// an interrupted upload has left never looks like an object, and is removed with the key
// by any process that can reach the store. The stores are in packages of their own:
//
//	local   a directory of the node, or of a volume that is mounted there
//	s3      a bucket of an S3 server
//
// Package storetest has the contract that every store passes. Package egress decides to
// which addresses a store may connect.
package store
