//go:build !unix

package idleread

import "errors"

const readable = false

var errWait = errors.New("nothing to read yet")

func readNonblock(uintptr, []byte) (int, error) { return 0, errWait }
