// Package groupsnapshot is about snapshots of several claims that are cut at one
// moment. At the driver they are one more kind of what package sidecar makes; this
// package has that kind, and which version of the API is used. What users ask
// for is the business of package controller below it.
package groupsnapshot
