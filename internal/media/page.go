package media

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/net/html/charset"
)

const (
	// maxToken bounds one tag or text of a page: who writes more is not describing it.
	maxToken = 64 << 10
	// maxTokens bounds the tags and texts that are looked at.
	maxTokens = 50_000
	// maxTitle and maxDescription bound what is shown, in characters.
	maxTitle, maxDescription = 300, 1000
	// maxImages is how many pictures are tried.
	maxImages = 3
	// minText is what a paragraph needs to be taken for a description, in characters.
	minText = 40
)

// page is what a page says of itself.
type page struct {
	title, description, typ, url, site, alt string
	// images are the pictures it names, the best first.
	images []string
	stored *storedImage
}

func (about *page) empty() bool {
	return about.title == "" && about.description == "" && about.stored == nil
}

// reading is a page that is being read: a list of tags and texts, without the tree
// that they would make. Nesting costs nothing.
type reading struct {
	z *html.Tokenizer
	// meta holds the first value of each name.
	meta map[string]string
	// title, heading and paragraph are the first texts of these, image the first
	// picture of the text.
	title, heading, paragraph, image string
	// into collects the text of the element that is open, nil for none; hidden is
	// the element whose text is none.
	into   *strings.Builder
	inside atom.Atom
	hidden atom.Atom
}

// readPage reads an HTML page whose sender says what type it is of. A page that ends
// in the middle, or goes on for too long, says what it said until then.
func readPage(r io.Reader, contentType string) (*page, error) {
	decoded, err := charset.NewReader(r, contentType)
	if err != nil {
		return nil, fmt.Errorf("read page: %w", err)
	}
	p := &reading{z: html.NewTokenizer(decoded), meta: map[string]string{}}
	p.z.SetMaxBuf(maxToken)
	for range maxTokens {
		if !p.next() {
			break
		}
	}
	p.close()
	return p.page(), nil
}

// next takes one tag or text; false at the end.
func (p *reading) next() bool {
	switch p.z.Next() {
	case html.ErrorToken:
		return false
	case html.TextToken:
		if p.into != nil && p.hidden == 0 && p.into.Len() < maxToken {
			p.into.Write(p.z.Text())
			p.into.WriteByte(' ')
		}
	case html.StartTagToken, html.SelfClosingTagToken:
		name, more := p.z.TagName()
		p.open(atom.Lookup(name), more)
	case html.EndTagToken:
		name, _ := p.z.TagName()
		switch tag := atom.Lookup(name); {
		case tag != 0 && tag == p.hidden:
			p.hidden = 0
		case tag != 0 && tag == p.inside:
			p.close()
		}
	}
	return true
}

func (p *reading) open(tag atom.Atom, more bool) {
	switch tag {
	case atom.Meta:
		a := p.attributes(more)
		name := strings.ToLower(a["property"])
		if name == "" {
			name = strings.ToLower(a["name"])
		}
		p.say(name, a["content"])
	case atom.Link:
		a := p.attributes(more)
		if strings.EqualFold(a["rel"], "image_src") {
			p.say("image_src", a["href"])
		}
	case atom.Img:
		if a := p.attributes(more); p.image == "" && !strings.HasPrefix(a["src"], "data:") {
			p.image = a["src"]
		}
	case atom.Script, atom.Style, atom.Noscript, atom.Template, atom.Svg:
		if p.hidden == 0 {
			p.hidden = tag
		}
	case atom.Title, atom.H1, atom.P:
		if p.hidden == 0 {
			p.close()
			p.into, p.inside = &strings.Builder{}, tag
		}
	}
}

func (p *reading) say(name, value string) {
	if name != "" && value != "" && p.meta[name] == "" {
		p.meta[name] = value
	}
}

func (p *reading) attributes(more bool) map[string]string {
	a := map[string]string{}
	for more {
		var key, value []byte
		key, value, more = p.z.TagAttr()
		if _, ok := a[string(key)]; !ok {
			a[string(key)] = string(value)
		}
	}
	return a
}

// close ends the element whose text is collected.
func (p *reading) close() {
	if p.into == nil {
		return
	}
	text := plain(p.into.String(), maxDescription)
	switch {
	case p.inside == atom.Title && p.title == "":
		p.title = text
	case p.inside == atom.H1 && p.heading == "":
		p.heading = text
	case p.inside == atom.P && p.paragraph == "" && utf8.RuneCountInString(text) >= minText:
		p.paragraph = text
	}
	p.into, p.inside = nil, 0
}

func (p *reading) page() *page {
	first := func(most int, values ...string) string {
		for _, v := range values {
			if v = plain(v, most); v != "" {
				return v
			}
		}
		return ""
	}
	m := p.meta
	about := &page{
		title:       first(maxTitle, m["og:title"], m["twitter:title"], p.title, p.heading),
		description: first(maxDescription, m["og:description"], m["twitter:description"], m["description"], p.paragraph),
		typ:         first(maxTitle, m["og:type"]),
		url:         first(maxURL, m["og:url"]),
		site:        first(maxTitle, m["og:site_name"]),
		alt:         first(maxTitle, m["og:image:alt"]),
	}
	for _, name := range []string{m["og:image"], m["og:image:secure_url"], m["og:image:url"], m["twitter:image"], m["image_src"], p.image} {
		if name = strings.TrimSpace(name); name != "" && len(about.images) < maxImages {
			about.images = append(about.images, name)
		}
	}
	return about
}

// plain makes one line of a text: white space is one space, control characters and
// marks of direction are left away, and it is cut at most characters.
func plain(s string, most int) string {
	var b strings.Builder
	n, space := 0, false
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			space = n > 0
			continue
		case r == utf8.RuneError, unicode.Is(unicode.Cc, r), unicode.Is(unicode.Bidi_Control, r):
			continue
		}
		if space {
			b.WriteByte(' ')
			n++
			space = false
		}
		if n >= most {
			b.WriteRune('…')
			break
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}
