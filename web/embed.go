// Package web carries the web app into the binary and serves it.
//
// The app is built by npm into dist (see README.md). The Go side builds without it: then dist holds a placeholder
// only, and Handler serves a page that says how to build the app. The files never change; the handler may be used by any
// number of goroutines.
//
// The package knows nothing of the rest of the server and imports none of it.
package web

import (
	"embed"
	"io/fs"
)

// The prefix all: includes the placeholder, without which an unbuilt dist would not compile.
//
//go:embed all:dist
var dist embed.FS

// Dist gives the built files, index.html at the root.
func Dist() fs.FS {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic("web: " + err.Error()) // the name is a constant and valid
	}
	return sub
}
