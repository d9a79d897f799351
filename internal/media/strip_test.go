package media

import (
	"bufio"
	"bytes"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "golang.org/x/image/webp"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The traces of a place in the fixtures: the date and the seconds of the position in
// Exif, which ImageMagick and others write in either order, and the name in XMP.
var traces = []string{"2024:01:02", "\x00\x12\xd6\x87", "\x87\xd6\x12\x00", "GPS", "Maker"}

func pixels(t *testing.T, b []byte) image.Image {
	t.Helper()
	img, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	return img
}

func sameImage(a, b image.Image) bool {
	if a.Bounds() != b.Bounds() {
		return false
	}
	for y := a.Bounds().Min.Y; y < a.Bounds().Max.Y; y++ {
		for x := a.Bounds().Min.X; x < a.Bounds().Max.X; x++ {
			if a.At(x, y) != b.At(x, y) {
				return false
			}
		}
	}
	return true
}

func whole(t *testing.T, w *world, id ID) []byte {
	t.Helper()
	f, err := w.Open(w.ctx, id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPlaceIsRemoved: nothing says where a picture was taken; its pixels are the
// same, and it stands upright still.
func TestPlaceIsRemoved(t *testing.T) {
	w := newWorld(t)
	for name, orientation := range map[string]int{"place.jpg": 6, "progressive.jpg": 8, "place.webp": 6, "place.png": 6} {
		before := fixture(t, name)
		if !strings.Contains(string(before), traces[0]) {
			t.Fatalf("%s has no place", name)
		}
		after := whole(t, w, uploadBytes(t, w, before, ""))
		for _, trace := range traces {
			if bytes.Contains(after, []byte(trace)) {
				t.Errorf("%s: %q is left", name, trace)
			}
		}
		if !sameImage(pixels(t, before), pixels(t, after)) {
			t.Errorf("%s: the pixels changed", name)
		}
		e, place := findExif(formatOf(sniff(after)), bytes.NewReader(after))
		if e.orientation != orientation || place {
			t.Errorf("%s: orientation %d, place %v", name, e.orientation, place)
		}
	}
}

// TestBehindThePicture: what hides behind the end of a photo goes with the place.
func TestBehindThePicture(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"place.jpg", "progressive.jpg", "place.png", "place.webp"} {
		after := whole(t, w, uploadBytes(t, w, append(fixture(t, name), "video with a position"...), ""))
		if bytes.Contains(after, []byte("video")) {
			t.Errorf("%s: what is behind the picture is left", name)
		}
		pixels(t, after)
	}
}

// TestCutPictures: what is shown of a picture that ends early is there, its place is
// not.
func TestCutPictures(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"place.jpg", "progressive.jpg", "place.png"} {
		before := fixture(t, name)
		for _, cut := range []int{10, 40} {
			after := whole(t, w, uploadBytes(t, w, before[:len(before)-cut], ""))
			for _, trace := range traces {
				if bytes.Contains(after, []byte(trace)) {
					t.Errorf("%s without its last %d bytes: %q is left", name, cut, trace)
				}
			}
			if _, _, err := image.DecodeConfig(bytes.NewReader(after)); err != nil {
				t.Errorf("%s without its last %d bytes: %v", name, cut, err)
			}
			// Its end is that of what came, where that is a part of the picture.
			if tail := before[len(before)-cut-10 : len(before)-cut]; name == "place.jpg" && !bytes.HasSuffix(after, tail) {
				t.Errorf("%s without its last %d bytes ends in %x, not in %x", name, cut, after[len(after)-10:], tail)
			}
		}
	}
	// Bytes between the segments are passed over.
	const afterJFIF = 20
	photo := fixture(t, "place.jpg")
	after := whole(t, w, uploadBytes(t, w, slices.Concat(photo[:afterJFIF], []byte("garbage\xff\x00"), photo[afterJFIF:]), ""))
	if bytes.Contains(after, []byte(traces[0])) || !sameImage(pixels(t, photo), pixels(t, after)) {
		t.Error("a photo with garbage in it")
	}
}

// TestNoPlaceNoChange: a picture that says nothing of a place, and what is no
// picture, is kept to the byte.
func TestNoPlaceNoChange(t *testing.T) {
	w := newWorld(t)
	place := fixture(t, "place.jpg")
	for name, b := range map[string][]byte{
		"photo": fixture(t, "noplace.jpg"), "webp": fixture(t, "noplace.webp"), "moving": fixture(t, "moving.webp"),
		"behind": append(fixture(t, "noplace.jpg"), "tail"...), "text": []byte("2024:01:02 GPS"),
		"cut in the metadata": place[:40], "only a head": place[:3],
	} {
		if after := whole(t, w, uploadBytes(t, w, b, "")); !bytes.Equal(after, b) {
			t.Errorf("%s changed: %d bytes became %d", name, len(b), len(after))
		}
	}
}

// TestTextOfPNG: the other ways in which PNG tells of a place.
func TestTextOfPNG(t *testing.T) {
	chunk := func(name, data string) string {
		return string([]byte{0, 0, 0, byte(len(data))}) + name + data + "sum."
	}
	for name, tt := range map[string]struct {
		chunk string
		place bool
	}{
		"XMP":            {chunk("iTXt", "XML:com.adobe.xmp\x00\x00\x00\x00\x00exif:GPSLatitude"), true},
		"XMP of colours": {chunk("iTXt", "XML:com.adobe.xmp\x00\x00\x00\x00\x00tiff:Orientation"), false},
		"compressed XMP": {chunk("iTXt", "XML:com.adobe.xmp\x00\x01\x00\x00\x00xxx"), true},
		"ImageMagick":    {chunk("zTXt", "Raw profile type exif\x00\x00xxx"), true},
		"a comment":      {chunk("tEXt", "Comment\x00GPS is a system"), false},
		"broken Exif":    {chunk("eXIf", "nonsense"), true},
	} {
		file := pngMagic + tt.chunk + chunk("IEND", "")
		if _, place := findExif(pngFormat{}, strings.NewReader(file)); place != tt.place {
			t.Errorf("%s: place %v", name, place)
		}
		var b bytes.Buffer
		err := pngFormat{}.walk(bufio.NewReader(strings.NewReader(file)), &b, func(metaKind, []byte) ([]byte, bool) { return nil, false })
		if want := pngMagic + chunk("IEND", ""); tt.place && (err != nil || b.String() != want) {
			t.Errorf("%s: got %q %v", name, b.String(), err)
		}
	}
}

// FuzzPicture: whatever a picture holds, nothing panics, and what was freed of its
// place does not tell of it again.
func FuzzPicture(f *testing.F) {
	for _, name := range []string{"place.jpg", "progressive.jpg", "place.png", "place.webp", "moving.webp", "alpha.webp"} {
		f.Add(fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if format := formatOf(sniff(b)); format != nil {
			var out bytes.Buffer
			err := format.walk(bufio.NewReader(bytes.NewReader(b)), &out, onlyUpright)
			_, place := findExif(format, bytes.NewReader(out.Bytes()))
			if err == nil && place && sniff(b) != typeWebP {
				t.Errorf("the place is still there")
			}
		}
		p, err := probe(bytes.NewReader(b), int64(len(b)))
		if err != nil || p.still == nil || p.width*p.height > 1<<12 {
			return
		}
		var out bytes.Buffer
		if err := movingWebP(&out, bytes.NewReader(b), p, size{32, 32, true}); err == nil {
			play(t, out.Bytes())
		}
	})
}
