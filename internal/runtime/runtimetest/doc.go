// Package runtimetest has a fake engine, and the contract that every engine passes.
//
// [Fake] is a node whose containers, dumps and journal are files. Its engines dump nothing
// real, but what they produce has the layout and the formats of a checkpoint, and a test can
// let each call fail, wait, or end the process at a [Point].
package runtimetest
