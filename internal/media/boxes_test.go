package media

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"
)

// boxOf makes a box of parts.
func boxOf(typ string, parts ...string) string {
	body := strings.Join(parts, "")
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)+boxHead))) + typ + body
}

// fullBox has a version, and no flags.
func fullBox(typ string, version byte, parts ...string) string {
	return boxOf(typ, string([]byte{version, 0, 0, 0}), strings.Join(parts, ""))
}

func u16(n int) string { return string(binary.BigEndian.AppendUint16(nil, uint16(n))) }
func u32(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }

// exifItem is an Exif item with a place, and an orientation.
func exifItem() string {
	entry := func(tag, typ, count, value int) string { return u16(tag) + u16(typ) + u32(count) + u32(value) }
	return u32(6) + exifMagic + "MM\x00*" + u32(8) + u16(3) +
		entry(0x010f, 2, 6, 50) + // Make
		entry(tagOrientation, 3, 1, 6<<16) + entry(tagGPS, 4, 1, 56) + u32(0) + "Maker\x00" + "2024:01:02 the place"
}

const xmpPlace = `<x:xmpmeta exif:GPSLatitude="52,31.0N"/>`

// photo is a HEIC file with an Exif item in two pieces, and XMP in idat.
func photo(exifData, xmp string) string {
	const pixels = "PIXELS THAT STAY"
	head := boxOf("ftyp", "heic", u32(0), "mif1heic")
	item := func(id int, typ, rest string) string {
		return fullBox("infe", 2, u16(id)+u16(0)+typ+"\x00"+rest)
	}
	meta := func(at int) string { // at is where mdat's data begin
		half := len(exifData) / 2
		return fullBox("meta", 0,
			fullBox("hdlr", 0, u32(0)+"pict"+u32(0)+u32(0)+u32(0)+"\x00"),
			fullBox("pitm", 0, u16(1)),
			fullBox("iinf", 0, u16(3), item(1, "hvc1", ""), item(2, "Exif", ""), item(3, "mime", "application/rdf+xml\x00\x00")),
			fullBox("iloc", 1, u16(0x4400)+u16(3)+
				u16(1)+u16(0)+u16(0)+u16(1)+u32(at)+u32(len(pixels))+
				u16(2)+u16(0)+u16(0)+u16(2)+u32(at+len(pixels))+u32(half)+u32(at+len(pixels)+half)+u32(len(exifData)-half)+
				u16(3)+u16(1)+u16(0)+u16(1)+u32(0)+u32(len(xmp))),
			boxOf("idat", xmp),
		)
	}
	at := len(head) + len(meta(0)) + boxHead
	return head + meta(at) + boxOf("mdat", pixels, exifData) + boxOf("free", "behind")
}

// video is a QuickTime file that says where it was taken in each way.
func video() string {
	data := func(text string) string { return boxOf("data", u32(1), u32(0), text) }
	key := func(name string) string { return u32(8+len(name)) + "mdta" + name }
	user := boxOf("udta", boxOf("\xa9xyz", u16(18), u16(0x15c7), "+52.5200+013.4050/"), boxOf("\xa9nam", "a name"),
		fullBox("loci", 0, u16(0)+"Berlin\x00"+"\x00"+u32(13)+u32(52)+u32(0)+"earth\x00\x00"), u32(0))
	keyed := boxOf("meta", // of QuickTime: without a version
		fullBox("hdlr", 0, u32(0)+"mdta"+u32(0)+u32(0)+u32(0)+"\x00"),
		fullBox("keys", 0, u32(3), key("com.apple.quicktime.make"), key("com.apple.quicktime.location.ISO6709"), key("com.apple.quicktime.location.name")),
		boxOf("ilst", boxOf(u32(1), data("Maker")), boxOf(u32(2), data("+52.5201+013.4051/")), boxOf(u32(3), data("Berlin"))))
	itunes := boxOf("udta", fullBox("meta", 0,
		fullBox("hdlr", 0, u32(0)+"mdir"+u32(0)+u32(0)+u32(0)+"\x00"), boxOf("ilst", boxOf("\xa9xyz", data("+52.5202+013.4052/")), boxOf("\xa9too", data("a tool")))))
	return boxOf("ftyp", "qt  ", u32(0), "qt  ") + boxOf("wide") + boxOf("mdat", "FRAMES THAT STAY") +
		boxOf("moov", boxOf("mvhd", "header"), boxOf("trak", boxOf("tkhd", "track"), user), keyed, itunes, boxOf("uuid", xmpUUID, xmpPlace))
}

// TestPlaceInBoxes: nothing in photos of phones and videos says where they were taken,
// and all else stays where it was.
func TestPlaceInBoxes(t *testing.T) {
	w := newWorld(t)
	large := photo("", "") // with a length of 64 bits
	moved := boxOf("ftyp", "heic", u32(0), "mif1heic")
	large = moved + string(binary.BigEndian.AppendUint64([]byte("\x00\x00\x00\x01uuid"), 16+16+uint64(len(xmpPlace)))) + xmpUUID + xmpPlace + large[len(moved):]
	for name, tt := range map[string]struct {
		file string
		gone []string
		kept []string
	}{
		"photo": {photo(exifItem(), xmpPlace), []string{"2024:01:02", "GPS", "Maker"}, []string{"PIXELS THAT STAY", "behind", "application/rdf+xml"}},
		"Exif":  {photo(exifItem(), `<x tiff:Make="Maker"/>`), []string{"2024:01:02", "Maker"}, []string{"PIXELS THAT STAY", "behind"}},
		"XMP":   {photo(u32(0)+"MM\x00*"+u32(8)+u16(0)+u32(0), xmpPlace), []string{"GPS"}, []string{"PIXELS THAT STAY", "behind"}},
		"large": {large, []string{"GPS"}, []string{"PIXELS THAT STAY"}},
		"video": {
			video(),
			[]string{"+52", "Berlin", "loci", "\xa9xyz", "GPS"},
			[]string{"FRAMES THAT STAY", "a name", "Maker", "a tool", "com.apple.quicktime.make", "header", "track"},
		},
		"old video":    {video()[20:], []string{"+52", "Berlin", "GPS"}, []string{"FRAMES THAT STAY", "a name"}},
		"unreadable":   {photo("nonsense that may be anything", ""), []string{"nonsense"}, []string{"PIXELS THAT STAY"}},
		"half a photo": {photo(exifItem(), xmpPlace)[:len(photo(exifItem(), xmpPlace))-20], []string{"GPS"}, []string{"PIXELS THAT STAY"}},
	} {
		after := string(whole(t, w, uploadBytes(t, w, []byte(tt.file), "")))
		if len(after) != len(tt.file) {
			t.Errorf("%s: %d bytes became %d", name, len(tt.file), len(after))
		}
		for _, text := range tt.gone {
			if !strings.Contains(tt.file, text) {
				t.Errorf("%s has no %q", name, text)
			}
			if strings.Contains(after, text) {
				t.Errorf("%s: %q is left", name, text)
			}
		}
		for _, text := range tt.kept {
			if at := strings.Index(tt.file, text); at < 0 || at != strings.Index(after, text) {
				t.Errorf("%s: %q is not where it was", name, text)
			}
		}
		if findPlaces(strings.NewReader(after), int64(len(after))) != nil {
			t.Errorf("%s still says something of a place", name)
		}
	}
}

// TestRealBoxes: files as libheif and FFmpeg write them.
func TestRealBoxes(t *testing.T) {
	w := newWorld(t)
	for name, gone := range map[string][]string{
		"place.heic": {"2024:01:02", "GPS", "Maker"}, "place.avif": {"2024:01:02", "GPS", "Maker"},
		"place.mov": {"+52.5200"}, "place.mp4": {"loci"},
	} {
		before := fixture(t, name)
		after := whole(t, w, uploadBytes(t, w, before, ""))
		for _, text := range gone {
			if !bytes.Contains(before, []byte(text)) || bytes.Contains(after, []byte(text)) {
				t.Errorf("%s: %q is left, or was not there", name, text)
			}
		}
		if len(after) != len(before) || findPlaces(bytes.NewReader(after), int64(len(after))) != nil {
			t.Errorf("%s: %d bytes became %d", name, len(before), len(after))
		}
	}
}

// TestUprightInBoxes: the orientation of a photo stays.
func TestUprightInBoxes(t *testing.T) {
	w := newWorld(t)
	before := photo(exifItem(), "")
	after := string(whole(t, w, uploadBytes(t, w, []byte(before), "")))
	at := strings.Index(before, exifItem())
	if e := readExif(tiffOf([]byte(after[at : at+len(exifItem())]))); e.orientation != 6 || e.place {
		t.Errorf("%+v", e)
	}
}

// TestBoxesWithoutPlace: what says nothing of a place is kept to the byte, and so is
// what only looks like boxes.
func TestBoxesWithoutPlace(t *testing.T) {
	w := newWorld(t)
	blank := u32(0) + "MM\x00*" + u32(8) + u16(0) + u32(0)
	deep := boxOf("\xa9xyz", "+52")
	for range 20 {
		deep = boxOf("udta", deep)
	}
	for name, file := range map[string]string{
		"photo":     photo(blank, `<x tiff:Make="Maker"/>`),
		"no Exif":   photo("", ""),
		"video":     boxOf("ftyp", "isom") + boxOf("moov", boxOf("udta", boxOf("\xa9nam", "GPS"))),
		"too deep":  boxOf("ftyp", "isom") + boxOf("moov", deep),
		"elsewhere": boxOf("ftyp", "isom") + boxOf("mdat", boxOf("moov", boxOf("udta", boxOf("\xa9xyz", "+52")))),
		"cut":       boxOf("ftyp", "isom") + boxOf("moov", "x")[:7],
		"text":      "12345 free text",
		"lengths":   boxOf("ftyp", "isom") + "\xff\xff\xff\xffmoov" + boxOf("udta", boxOf("\xa9xyz", "+52")),
		"short":     boxOf("ftyp", "isom") + u32(3) + "moov" + boxOf("\xa9xyz", "+52"),
		"empty":     boxOf("ftyp", "isom") + boxOf("meta") + boxOf("moov", boxOf("meta", "1234")),
	} {
		if after := whole(t, w, uploadBytes(t, w, []byte(file), "")); string(after) != file {
			t.Errorf("%s changed", name)
		}
	}
}

// TestHostileBoxes: lengths, counts and places that cannot be cost little, and change
// nothing else.
func TestHostileBoxes(t *testing.T) {
	var many strings.Builder
	for range 3 * maxBoxes {
		many.WriteString(boxOf("free"))
	}
	iloc := func(sizes int, rest string) string {
		return boxOf("ftyp", "heic") + fullBox("meta", 0, fullBox("hdlr", 0, u32(0)+"pict"),
			fullBox("iinf", 0, u16(1), fullBox("infe", 2, u16(2)+u16(0)+"Exif\x00")), fullBox("iloc", 1, u16(sizes)+rest))
	}
	var all strings.Builder // every item is the whole file
	for range 1000 {
		all.WriteString(u32(0) + u32(1<<20))
	}
	for name, file := range map[string]string{
		"many boxes":      boxOf("ftyp", "isom") + many.String() + boxOf("moov", boxOf("\xa9xyz", "+52")),
		"many pieces":     iloc(0x4400, u16(1)+u16(2)+u16(0)+u16(0)+u16(1000)+all.String()) + strings.Repeat("x", 1<<20),
		"far away":        iloc(0x8800, u16(1)+u16(2)+u16(0)+u16(0)+u16(1)+strings.Repeat("\x7f", 16)),
		"negative":        iloc(0x8800, u16(1)+u16(2)+u16(0)+u16(0)+u16(1)+strings.Repeat("\xff", 16)),
		"wide numbers":    iloc(0xffff, u16(1)+u16(2)+u16(0)+u16(0)+u16(1)+strings.Repeat("\x01", 64)),
		"no idat":         iloc(0x4400, u16(1)+u16(2)+u16(1)+u16(0)+u16(1)+u32(0)+u32(8)),
		"too many pieces": iloc(0x4400, u16(math.MaxUint16)+u16(2)+u16(0)+u16(0)+u16(math.MaxUint16)),
	} {
		b := &boxReader{r: strings.NewReader(file), size: int64(len(file)), boxes: maxBoxes, budget: maxBoxBytes}
		_ = b.walk(box{end: b.size}, 0, b.top)
		if b.boxes < -maxBoxDepth || b.budget < 0 || len(b.patches) > maxItems*maxItems {
			t.Errorf("%s: %d boxes and %d bytes are left, %d patches", name, b.boxes, b.budget, len(b.patches))
		}
		var out bytes.Buffer
		if err := patched(&out, strings.NewReader(file), int64(len(file)), findPlaces(strings.NewReader(file), int64(len(file)))); err != nil || out.Len() != len(file) {
			t.Errorf("%s: %d bytes became %d, %v", name, len(file), out.Len(), err)
		}
	}
}

// FuzzBoxes: whatever boxes hold, nothing panics, the length stays, and what is no patch
// stays.
func FuzzBoxes(f *testing.F) {
	f.Add([]byte(photo(exifItem(), xmpPlace)))
	f.Add([]byte(video()))
	f.Add([]byte(video()[20:]))
	f.Add(fixture(f, "place.heic"))
	f.Fuzz(func(t *testing.T, file []byte) {
		patches := findPlaces(bytes.NewReader(file), int64(len(file)))
		var out bytes.Buffer
		if err := patched(&out, bytes.NewReader(file), int64(len(file)), patches); err != nil || out.Len() != len(file) {
			t.Fatalf("%d bytes became %d, %v", len(file), out.Len(), err)
		}
		pos := int64(0)
		for _, p := range append(patches, patch{at: int64(len(file))}) {
			if p.at > pos && !bytes.Equal(out.Bytes()[pos:p.at], file[pos:p.at]) {
				t.Fatalf("what is between %d and %d changed", pos, p.at)
			}
			pos = max(pos, p.at+p.n)
		}
	})
}
