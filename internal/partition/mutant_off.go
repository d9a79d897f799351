//go:build !mutant_ack_early

package partition

// ackEarly is a fault for the crash tests: built with the tag mutant_ack_early,
// an owner answers that long before it commits, and they must find out.
const ackEarly = 0
