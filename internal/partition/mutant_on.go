//go:build mutant_ack_early

package partition

const ackEarly = true
