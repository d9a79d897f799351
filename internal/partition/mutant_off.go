//go:build !mutant_ack_early

package partition

import "time"

// ackEarly is how long before its commit a batch is answered: a fault for the tests of
// crashes, which must find out what a server that is built with the tag mutant_ack_early
// loses.
func ackEarly() time.Duration { return 0 }
