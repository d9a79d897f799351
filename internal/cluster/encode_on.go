//go:build encode_commands

package cluster

const encodeAll = true
