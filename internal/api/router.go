package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// router finds the route of an escaped path.
//
// A path is split at its slashes while still escaped, and each segment is decoded
// exactly once, so that "%2F" in a room alias is data and never a separator.
// Nothing is cleaned and nothing redirects: ".." is a segment like any other, and an
// empty segment matches nothing. A literal segment wins over a parameter, but
// the search goes on if the literal branch has no route for the method: a name
// that a user chose must not hide a route.
//
// net/http's ServeMux was not taken: it needs an http.Request, which a call over
// the WebSocket does not have, redirects "//" and "..", and hides wrong methods
// behind a catch-all.
//
// It is built once and then only read.
type router struct {
	root node
}

const (
	// maxParams is the most parameters of a template. The specification's longest
	// has four.
	maxParams = 6
	// maxRouteMethods bounds the methods of one template, so that they are collected
	// without allocation. HTTP has not many more.
	maxRouteMethods = 8
)

// prefixes are the parts of the URL space that the dispatcher answers. Whatever
// is unknown below them is M_UNRECOGNIZED.
func prefixes() [4]string {
	return [...]string{"/_matrix", "/.well-known/matrix", "/_synapse", "/_hubbub"}
}

// Owns reports whether a path, escaped or not, is the dispatcher's to answer.
func Owns(path string) bool {
	// The first check keeps the loop from the paths of a web app.
	if len(path) < 2 || path[1] != '_' && path[1] != '.' {
		return false
	}
	for _, prefix := range prefixes() {
		if rest, ok := strings.CutPrefix(path, prefix); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

type node struct {
	literal map[string]*node
	param   *node
	// here are the routes that end at this node, slash those that end with a
	// slash after it, rest those that take all that follows.
	here, slash, rest []leaf
}

type leaf struct {
	method   string
	endpoint *endpoint
	// names are the parameters of this template, in order.
	names []string
	// alias leaves give way to routes that name the path themselves.
	alias bool
}

// search is the state of one look-up.
type search struct {
	method string
	raw    [maxParams]string
	n      int
	found  *leaf
	// allowed are the methods that the path has, if none matched.
	allowed  [maxRouteMethods]string
	nAllowed int
}

var errDuplicateRoute = errors.New("another route has this method and path")

// add puts a template into the tree. An alias that finds its place taken is
// dropped.
func (rt *router) add(method, template string, ep *endpoint, alias bool) error {
	if !strings.HasPrefix(template, "/") {
		return errors.New("the path does not begin with a slash")
	}
	n := &rt.root
	l := leaf{method: method, endpoint: ep, alias: alias}
	segments := strings.Split(template[1:], "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		switch {
		case segment == "" && last:
			if err := insert(&n.slash, l); err != nil {
				return err
			}
			return insert(&n.here, l)
		case segment == "":
			return errors.New("the path has an empty segment")
		case !strings.ContainsAny(segment, "{}"):
			if strings.Contains(segment, "%") {
				return fmt.Errorf("the segment %q is escaped", segment)
			}
			next := n.literal[segment]
			if next == nil {
				if n.literal == nil {
					n.literal = make(map[string]*node)
				}
				next = &node{}
				n.literal[segment] = next
			}
			n = next
			continue
		}
		name, isRest, err := parameter(segment)
		if err != nil {
			return err
		}
		if slices.Contains(l.names, name) || len(l.names) == maxParams || isRest && !last {
			return fmt.Errorf("the parameter %q is one too many or out of place", name)
		}
		l.names = append(l.names, name)
		if isRest {
			return insert(&n.rest, l)
		}
		if n.param == nil {
			n.param = &node{}
		}
		n = n.param
	}
	return insert(&n.here, l)
}

func parameter(segment string) (name string, isRest bool, err error) {
	name, ok := strings.CutPrefix(segment, "{")
	if ok {
		name, ok = strings.CutSuffix(name, "}")
	}
	name, isRest = strings.CutSuffix(name, "...")
	if !ok || name == "" || strings.ContainsAny(name, "{}.") {
		return "", false, fmt.Errorf("the segment %q is neither literal nor a parameter", segment)
	}
	return name, isRest, nil
}

func insert(leaves *[]leaf, l leaf) error {
	for i := range *leaves {
		if (*leaves)[i].method != l.method {
			continue
		}
		switch old := (*leaves)[i]; {
		case old.endpoint == l.endpoint, l.alias:
			return nil
		case old.alias:
			(*leaves)[i] = l
			return nil
		}
		return errDuplicateRoute
	}
	if len(*leaves) == maxRouteMethods {
		return errors.New("too many methods for one path")
	}
	*leaves = append(*leaves, l)
	return nil
}

// find looks up an escaped path. It does not allocate unless a literal segment
// comes escaped.
func (rt *router) find(s *search, path string) bool {
	return rt.root.walk(s, path)
}

// walk matches rest, which is empty or begins with a slash. It visits each node
// of the tree once at most, whatever the path.
func (n *node) walk(s *search, rest string) bool {
	if rest == "" {
		return s.end(n.here)
	}
	if rest[0] != '/' {
		return false
	}
	segment, after := rest[1:], ""
	if i := strings.IndexByte(segment, '/'); i >= 0 {
		segment, after = segment[:i], segment[i:]
	}
	if segment == "" {
		return after == "" && s.end(n.slash)
	}
	if next := n.child(segment); next != nil && next.walk(s, after) {
		return true
	}
	if n.param != nil {
		s.raw[s.n] = segment
		s.n++
		if n.param.walk(s, after) {
			return true
		}
		s.n--
	}
	if len(n.rest) > 0 && !strings.Contains(rest, "//") && !strings.HasSuffix(rest, "/") {
		s.raw[s.n] = rest[1:]
		s.n++
		if s.end(n.rest) {
			return true
		}
		s.n--
	}
	return false
}

func (n *node) child(segment string) *node {
	if next := n.literal[segment]; next != nil || len(n.literal) == 0 || strings.IndexByte(segment, '%') < 0 {
		return next
	}
	decoded, ok := unescape(segment, false)
	if !ok {
		return nil
	}
	return n.literal[decoded]
}

func (s *search) end(leaves []leaf) bool {
	for i := range leaves {
		if leaves[i].method == s.method {
			s.found = &leaves[i]
			return true
		}
	}
	for i := range leaves {
		if m := leaves[i].method; s.nAllowed < len(s.allowed) && !slices.Contains(s.allowed[:s.nAllowed], m) {
			s.allowed[s.nAllowed] = m
			s.nAllowed++
		}
	}
	return false
}

// allow returns the value of the Allow header.
func (s *search) allow() string {
	methods := append([]string{http.MethodOptions}, s.allowed[:s.nAllowed]...)
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

// aliases returns the older names of a template.
// spec: client-server §Specification version: r0 became v3; media had r0 and v1.
func aliases(template string) []string {
	if rest, ok := strings.CutPrefix(template, "/_matrix/client/v3/"); ok {
		return []string{"/_matrix/client/r0/" + rest}
	}
	if rest, ok := strings.CutPrefix(template, "/_matrix/media/v3/"); ok {
		return []string{"/_matrix/media/r0/" + rest, "/_matrix/media/v1/" + rest}
	}
	return nil
}
