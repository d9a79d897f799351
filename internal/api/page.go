package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http"
)

// Page is a page for a person who came by a link: text, and one thing to do.
type Page struct {
	Title string
	Lines []string
	// Form, if not nil, is a button that sends fields back to the server.
	Form *Form
	// Links lead on.
	Links []Link
	// AuthDone tells the client that opened the page that a stage of user-interactive
	// authentication is completed.
	AuthDone bool
}

// Form is a button that posts hidden fields.
type Form struct {
	// Action is a path of this server.
	Action string
	Fields []Field
	Button string
}

// Field is a hidden field of a form.
type Field struct{ Name, Value string }

// Link leads on. URL was checked to be safe, of whatever scheme: html/template
// knows only a few.
type Link struct{ Text, URL string }

const pageStyle = `body{font-family:sans-serif;line-height:1.5;max-width:32rem;margin:4rem auto;padding:0 1rem}button,.go{font:inherit;padding:.5rem 1rem}`

// doneScript is what clients wait for. Nothing is told but that it is time to ask:
// so any origin may hear it. spec: client-server §User-Interactive Authentication
// API, fallback.
const doneScript = `if(window.onAuthDone){window.onAuthDone()}else if(window.opener){window.opener.postMessage("authDone","*")}`

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"checked": func(s string) template.URL { return template.URL(s) },
	"style":   func() template.CSS { return pageStyle },
	"done":    func() template.JS { return doneScript },
}).Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">
<title>{{.Title}}</title><style>{{style}}</style></head>
<body><h1>{{.Title}}</h1>
{{range .Lines}}<p>{{.}}</p>
{{end}}{{with .Form}}<form method="post" action="{{.Action}}">
{{range .Fields}}<input type="hidden" name="{{.Name}}" value="{{.Value}}">
{{end}}<button type="submit">{{.Button}}</button></form>
{{end}}{{range .Links}}<p><a class="go" rel="noreferrer" href="{{checked .URL}}">{{.Text}}</a></p>
{{end}}{{if .AuthDone}}<script>{{done}}</script>
{{end}}</body></html>
`))

// pagePolicy lets a page do nothing but show its text in its style, run the one
// script there is, and send its form here.
var pagePolicy = "default-src 'none'; style-src " + hashSource(pageStyle) + "; script-src " + hashSource(doneScript) +
	"; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// hashSource allows one text in a policy.
func hashSource(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// Write answers with the page. The headers that all answers have keep it out of
// frames and caches, and its address out of referrers.
func (p *Page) Write(w http.ResponseWriter, status int) {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		panic("api: page: " + err.Error()) // the template takes any text
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	// No script of another origin has to do with a page.
	h.Del("Access-Control-Allow-Origin")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // an error means that the reader is gone
}
