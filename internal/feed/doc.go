// Package feed turns the logs of the partitions into what one user's devices
// see: responses to /v3/sync and frames pushed over sockets, from one engine.
package feed
