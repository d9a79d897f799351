package media

import (
	"bytes"
	"mime"
	"slices"
	"strings"
)

// sniffBytes is how much of a file its type is recognised by.
const sniffBytes = 512

// The types that are recognised. Those that thumbnails are made of are the first
// four: every further decoder is one more that hostile files are written for.
const (
	typePNG  = "image/png"
	typeJPEG = "image/jpeg"
	typeGIF  = "image/gif"
	typeWebP = "image/webp"
	typeAVIF = "image/avif"

	typeUnknown = "application/octet-stream"
)

// sniff recognises pictures by their first bytes, "" for anything else.
func sniff(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte(pngMagic)):
		return typePNG
	case bytes.HasPrefix(head, []byte("\xff\xd8\xff")):
		return typeJPEG
	case bytes.HasPrefix(head, []byte("GIF87a")), bytes.HasPrefix(head, []byte("GIF89a")):
		return typeGIF
	case len(head) >= 12 && string(head[:4]) == "RIFF" && string(head[8:12]) == "WEBP":
		return typeWebP
	case len(head) >= 12 && (string(head[4:12]) == "ftypavif" || string(head[4:12]) == "ftypavis"):
		return typeAVIF
	}
	return ""
}

// inlineTypes are the types that a browser may show by itself when somebody opens
// the address of media. SVG, HTML and PDF are not among them: they run scripts.
// spec: client-server §Serving inline content.
func inlineTypes() []string {
	return []string{
		"text/css", "text/plain", "text/csv", "application/json", "application/ld+json",
		"image/jpeg", "image/gif", "image/png", "image/apng", "image/webp", "image/avif",
		"video/mp4", "video/webm", "video/ogg", "video/quicktime",
		"audio/mp4", "audio/webm", "audio/aac", "audio/mpeg", "audio/ogg", "audio/wave", "audio/wav", "audio/x-wav",
		"audio/x-pn-wav", "audio/flac", "audio/x-flac",
	}
}

// Inline reports whether a content type may be shown inline.
func Inline(contentType string) bool {
	base, _, err := mime.ParseMediaType(contentType)
	return err == nil && slices.Contains(inlineTypes(), base)
}

// contentType decides what media is served as: what its sender says, unless that is
// no media type, or claims a picture that browsers show and which it is not.
func contentType(declared string, head []byte) string {
	found := sniff(head)
	base, params, err := mime.ParseMediaType(declared)
	if err != nil || len(declared) > maxType || !strings.Contains(base, "/") {
		// Nothing was said, or nonsense. Encrypted files say application/octet-stream.
		if found == "" {
			return typeUnknown
		}
		return found
	}
	if strings.HasPrefix(base, "image/") && slices.Contains(inlineTypes(), base) {
		switch {
		case found == "":
			return typeUnknown
		case found == typePNG && base == "image/apng":
			return base
		}
		return found
	}
	if text := mime.FormatMediaType(base, params); text != "" {
		return text
	}
	return base
}
