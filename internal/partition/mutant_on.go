//go:build mutant_ack_early

package partition

import "time"

const ackEarly = 10 * time.Millisecond
