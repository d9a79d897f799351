package lint

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// Docs checks that what README.md and docs/ name exists: paths in code spans and
// code blocks, and the targets of relative links.
func Docs(t *Tree) []Finding {
	var found []Finding
	for _, p := range t.Docs {
		if p != "README.md" && !strings.HasPrefix(p, "docs/") {
			continue
		}
		text, err := fs.ReadFile(t.FS, p)
		if err != nil {
			continue
		}
		fenced := false
		for i, line := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				fenced = !fenced
				continue
			}
			for _, name := range pathsNamed(line, fenced, path.Dir(p)) {
				if _, err := fs.Stat(t.FS, name); err != nil {
					found = append(found, Finding{fmt.Sprintf("%s:%d", p, i+1), name + " does not exist"})
				}
			}
		}
	}
	return inOrder(found)
}

var (
	codeSpan = regexp.MustCompile("`([^`]+)`")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	// placeholder marks what stands for many paths or none.
	placeholder = regexp.MustCompile(`[*<>{}$…\[\]|]`)
	topFile     = regexp.MustCompile(`^(README\.md|Makefile|go\.mod|[a-z.]+\.example\.toml)$`)
)

// pathsNamed returns the paths that a line of a document names, relative to the
// root.
func pathsNamed(line string, fenced bool, dir string) []string {
	var words []string
	if fenced {
		code, _, _ := strings.Cut(line, " #")
		words = strings.Fields(code)
	} else {
		for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
			words = append(words, strings.Fields(m[1])...)
		}
	}
	var names []string
	for _, w := range words {
		if name, ok := repositoryPath(w); ok {
			names = append(names, name)
		}
	}
	if fenced {
		return names
	}
	for _, m := range link.FindAllStringSubmatch(line, -1) {
		target, _, _ := strings.Cut(m[1], "#")
		if target != "" && !strings.Contains(target, ":") && !strings.HasPrefix(target, "/") {
			names = append(names, path.Join(dir, target))
		}
	}
	return names
}

// repositoryPath reports whether a word looks like a path of the repository.
func repositoryPath(w string) (string, bool) {
	if placeholder.MatchString(w) {
		return "", false
	}
	w = strings.TrimPrefix(strings.Trim(w, `"'(),;`), "./")
	w = strings.TrimSuffix(strings.TrimSuffix(strings.TrimRight(w, "."), "/"), "/...")
	w = strings.TrimSuffix(w, "/")
	if i := strings.IndexAny(w, ":#"); i >= 0 {
		w = w[:i] // a line or a heading behind the path
	}
	if topFile.MatchString(w) {
		return w, true
	}
	top, rest, below := strings.Cut(w, "/")
	if !below || rest == "" || !fs.ValidPath(w) {
		return "", false
	}
	switch top {
	case "cmd", "internal", "docs", "deploy", "bench", ".ci":
		return w, true
	case "web":
		// What npm makes is not in a fresh clone.
		return w, !strings.HasPrefix(rest, "dist/") && !strings.HasPrefix(rest, "node_modules")
	}
	return "", false
}
