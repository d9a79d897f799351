//go:build !encode_commands

package cluster

// encodeAll is for tests of whole servers: built with the tag encode_commands, every
// command goes through its encoding, as if each partition were on another node.
const encodeAll = false
