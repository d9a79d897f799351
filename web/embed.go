// Package web holds the web app as `npm run build` left it in web/dist. Without
// a build it holds nothing but a placeholder, so that the Go side builds without
// npm. It may be imported by app only.
package web

import (
	"embed"
	"io/fs"
)

// "all:" takes the placeholder too, whose name begins with a dot: an embed
// pattern must match something.
//
//go:embed all:dist
var dist embed.FS

// Dist returns the files of the web app, and whether it was built.
func Dist() (files fs.FS, built bool) {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic("web: " + err.Error()) // "dist" is a valid path
	}
	_, err = fs.Stat(files, "index.html")
	return files, err == nil
}
