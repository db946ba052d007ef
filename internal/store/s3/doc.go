// Package s3 keeps checkpoints in a bucket of an S3 server.
//
// # Uploads
//
// An object is collected in chunks of 5 MiB, 10 to 20 MiB of memory at a time. One that fits
// into the first chunk is written by one request. Others are multipart uploads, whose parts
// become larger, because S3 takes at most 10,000:
//
//	parts          size each  in memory  up to
//	1 to 500       5 MiB      10 MiB     2.4 GiB
//	501 to 1500    10 MiB     15 MiB     12.2 GiB
//	1501 to 10000  20 MiB     20 MiB     178.2 GiB
//
// While a part is sent, the next one is collected as far as there is memory.
// [MaxObject] is the most that a store takes. Each part has a CRC32C, and over plain HTTP
// also a signed SHA-256, which the server verifies. A part whose request fails is sent
// again, so an upload survives cut connections and a restart of the server.
//
// The upload is completed with If-None-Match, so that it replaces no object. Each upload
// has a random name in the metadata of its object: if a response to the completion is
// lost, the object says whose it is.
//
// # Network
//
// Requests have no limit of their whole time, but are canceled when nothing moves.
// HTTP_PROXY and its like are ignored: a proxy would connect to addresses that
// [Config].DialContext refuses. Redirects are not followed.
package s3
