package media

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

// halves is a picture whose left half is red and whose right half is blue, with a
// green stripe over the uppermost quarter.
func halves(w, h int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.NRGBA{R: 255, A: 255}
			if x >= w/2 {
				c = color.NRGBA{B: 255, A: 255}
			}
			if y < h/4 {
				c = color.NRGBA{G: 255, A: 255}
			}
			img.SetNRGBA(x, y, c)
		}
	}
	return img
}

func pngOf(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jpegOf(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// gifOf is an animation of a red and a blue frame, and so on.
func gifOf(t testing.TB, w, h, frames int) []byte {
	t.Helper()
	if frames > 2 {
		// Two frames, again and again: to compress each would take long.
		two := gifOf(t, w, h, 2)
		frame := []byte("\x21\xf9\x04")
		first := bytes.Index(two, frame)
		second := first + 1 + bytes.Index(two[first+1:], frame)
		out := slices.Clone(two[:first])
		for i := range frames {
			if i%2 == 0 {
				out = append(out, two[first:second]...)
			} else {
				out = append(out, two[second:len(two)-1]...)
			}
		}
		return append(out, gifTrailer)
	}
	g := &gif.GIF{}
	palette := color.Palette{color.RGBA{R: 255, A: 255}, color.RGBA{B: 255, A: 255}}
	for i := range frames {
		p := image.NewPaletted(image.Rect(0, 0, w, h), palette)
		for j := range p.Pix {
			p.Pix[j] = uint8(i % 2)
		}
		g.Image, g.Delay = append(g.Image, p), append(g.Delay, 10)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// thumb returns a thumbnail with its type.
func thumb(t *testing.T, w *world, id ID, want Thumbnail) ([]byte, string) {
	t.Helper()
	f, err := w.Thumbnail(w.ctx, id, want, 0)
	if err != nil {
		t.Fatalf("thumbnail %+v: %v", want, err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b, f.Type
}

func near(c color.Color, want color.RGBA) bool {
	r, g, b, a := c.RGBA()
	for _, d := range [][2]int{{int(r >> 8), int(want.R)}, {int(g >> 8), int(want.G)}, {int(b >> 8), int(want.B)}, {int(a >> 8), int(want.A)}} {
		if d[0]-d[1] > 30 || d[1]-d[0] > 30 {
			return false
		}
	}
	return true
}

var red, blue, green = color.RGBA{R: 255, A: 255}, color.RGBA{B: 255, A: 255}, color.RGBA{G: 255, A: 255}

func TestThumbnailSizes(t *testing.T) {
	w := newWorld(t)
	id := uploadBytes(t, w, pngOf(t, halves(1000, 500)), "image/png")
	for _, tt := range []struct {
		want Thumbnail
		w, h int
	}{
		{Thumbnail{Width: 10, Height: 10, Crop: true}, 32, 32},
		{Thumbnail{Width: 32, Height: 32, Crop: true}, 32, 32},
		{Thumbnail{Width: 33, Height: 32, Crop: true}, 96, 96},
		{Thumbnail{Width: 500, Height: 100, Crop: true}, 500, 500}, // no larger than the picture
		{Thumbnail{Width: 1, Height: 1}, 320, 160},
		{Thumbnail{Width: 640, Height: 480}, 640, 320},
		{Thumbnail{Width: 800, Height: 600}, 800, 400},
		{Thumbnail{Width: 801, Height: 600}, 1000, 500},
		{Thumbnail{Width: 5000, Height: 5000}, 1000, 500},
		{Thumbnail{Width: 600, Height: 600, Crop: true}, 800, 400},
		{Thumbnail{Width: 1 << 20, Height: 1 << 20, Crop: true}, 1000, 500},
	} {
		b, typ := thumb(t, w, id, tt.want)
		img := pixels(t, b)
		if img.Bounds().Dx() != tt.w || img.Bounds().Dy() != tt.h || typ != sniff(b) {
			t.Errorf("%+v: %v of type %s, want %dx%d", tt.want, img.Bounds(), typ, tt.w, tt.h)
		}
		if l, r := img.At(tt.w/4, tt.h/2), img.At(tt.w*3/4, tt.h/2); !near(l, red) || !near(r, blue) {
			t.Errorf("%+v: left %v, right %v", tt.want, l, r)
		}
	}
	if n := w.stored(); n != 1+6 {
		t.Errorf("%d blobs, want the picture and six sizes", n)
	}
	if err := w.Delete(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	w.wantNothing()
}

// TestThumbnailFormats: every kind of picture, upright.
func TestThumbnailFormats(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name   string
		file   []byte
		w, h   int
		first  color.RGBA // at the left of the middle
		second color.RGBA // at the right
	}{
		{"png", pngOf(t, halves(64, 64)), 32, 32, red, blue},
		{"jpeg", jpegOf(t, halves(64, 64)), 32, 32, red, blue},
		{"gif", gifOf(t, 64, 64, 1), 32, 32, red, red},
		{"webp", fixture(t, "noplace.webp"), 32, 32, red, blue},
		{"lossless webp with transparency", fixture(t, "alpha.webp"), 32, 32, red, blue},
		{"webp with transparency", fixture(t, "alphalossy.webp"), 32, 32, red, blue},
		{"moving webp", fixture(t, "moving.webp"), 32, 32, red, blue},
		{"moving lossless webp", fixture(t, "movinglossless.webp"), 32, 32, red, blue},
		// Stored lying: the stripe at its top is at the right.
		{"turned jpeg", fixture(t, "place.jpg"), 32, 32, blue, green},
		{"turned webp", fixture(t, "place.webp"), 32, 32, blue, green},
		{"upside down", fixture(t, "noplace.jpg"), 32, 32, blue, red},
	} {
		b, typ := thumb(t, w, uploadBytes(t, w, tt.file, ""), Thumbnail{Width: 32, Height: 32, Crop: true})
		img := pixels(t, b)
		if img.Bounds().Dx() != tt.w || img.Bounds().Dy() != tt.h || typ == "" {
			t.Errorf("%s: %v %s", tt.name, img.Bounds(), typ)
			continue
		}
		first, second := img.At(tt.w/4, tt.h*5/8), img.At(tt.w*7/8, tt.h*5/8)
		if !near(first, tt.first) || !near(second, tt.second) {
			t.Errorf("%s: left %v, right %v", tt.name, first, second)
		}
	}
}

// TestTurn is the table of orientations: a picture of 2x3 pixels a b / c d / e f.
func TestTurn(t *testing.T) {
	for orientation, want := range map[int]string{
		0: "ab/cd/ef", 1: "ab/cd/ef", 2: "ba/dc/fe", 3: "fe/dc/ba", 4: "ef/cd/ab",
		5: "ace/bdf", 6: "eca/fdb", 7: "fdb/eca", 8: "bdf/ace", 9: "ab/cd/ef",
	} {
		img := image.NewRGBA(image.Rect(0, 0, 2, 3))
		for i := range 6 {
			img.SetRGBA(i%2, i/2, color.RGBA{R: uint8('a' + i)})
		}
		out := turn(img, orientation)
		var rows []string
		for y := range out.Rect.Dy() {
			row := ""
			for x := range out.Rect.Dx() {
				row += string(rune(out.RGBAAt(x, y).R))
			}
			rows = append(rows, row)
		}
		if got := strings.Join(rows, "/"); got != want {
			t.Errorf("orientation %d: %s, want %s", orientation, got, want)
		}
	}
}

// TestShrink compares with the mean that is worked out the slow way.
func TestShrink(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		sw, sh := 1+rnd.IntN(60), 1+rnd.IntN(60)
		w, h := 1+rnd.IntN(sw), 1+rnd.IntN(sh)
		img := image.NewRGBA(image.Rect(0, 0, sw+7, sh+5))
		for i := range img.Pix {
			img.Pix[i] = uint8(rnd.IntN(256))
		}
		src := image.Rect(3, 2, 3+sw, 2+sh)
		out := shrink(img, src, w, h)
		fx, fy := float64(sw)/float64(w), float64(sh)/float64(h)
		for y := range h {
			for x := range w {
				var sum float64
				for v := range sh {
					for u := range sw {
						cover := overlap(float64(u), float64(x)*fx, fx) * overlap(float64(v), float64(y)*fy, fy)
						sum += cover * float64(img.RGBAAt(src.Min.X+u, src.Min.Y+v).G)
					}
				}
				if got, want := float64(out.RGBAAt(x, y).G), sum/(fx*fy); math.Abs(got-want) > 0.51 {
					t.Fatalf("%dx%d to %dx%d at %d,%d: %v, want %v", sw, sh, w, h, x, y, got, want)
				}
			}
		}
	}
}

// overlap is how much of the unit from u lies in the stretch of that length from at.
func overlap(u, at, length float64) float64 {
	return max(0, min(u+1, at+length)-max(u, at))
}

// TestAnimated: moving thumbnails of GIF where they are wanted, and only there.
func TestAnimated(t *testing.T) {
	w := newWorld(t)
	id := uploadBytes(t, w, gifOf(t, 400, 200, 3), "image/gif")
	b, typ := thumb(t, w, id, Thumbnail{Width: 320, Height: 240, Animated: true})
	g, err := gif.DecodeAll(bytes.NewReader(b))
	if err != nil || typ != typeGIF || len(g.Image) != 3 || g.Config.Width != 320 || g.Config.Height != 160 {
		t.Fatalf("%v %s, %d frames", err, typ, len(g.Image))
	}
	for i, want := range []color.RGBA{red, blue, red} {
		if got := g.Image[i].At(100, 100); !near(got, want) || g.Delay[i] != 10 {
			t.Errorf("frame %d: %v after %d", i, got, g.Delay[i])
		}
	}
	if b, typ = thumb(t, w, id, Thumbnail{Width: 320, Height: 240}); typ == typeGIF || !near(pixels(t, b).At(1, 1), red) {
		t.Errorf("without animated: %s", typ)
	}
	// A small one is its own thumbnail, but only if it may move.
	id = uploadBytes(t, w, gifOf(t, 20, 20, 2), "image/gif")
	if _, typ = thumb(t, w, id, Thumbnail{Width: 320, Height: 240, Animated: true}); typ != typeGIF {
		t.Errorf("small: %s", typ)
	}
	if _, typ = thumb(t, w, id, Thumbnail{Width: 320, Height: 240}); typ == typeGIF {
		t.Errorf("small, not animated: %s", typ)
	}
}

// TestPartialFrames: frames that cover a part are put together as viewers do.
func TestPartialFrames(t *testing.T) {
	palette := color.Palette{color.RGBA{R: 255, A: 255}, color.RGBA{B: 255, A: 255}, color.RGBA{}}
	frame := func(r image.Rectangle, c uint8) *image.Paletted {
		p := image.NewPaletted(r, palette)
		for i := range p.Pix {
			p.Pix[i] = c
		}
		return p
	}
	left := image.Rect(0, 0, 64, 128)
	g := &gif.GIF{
		Image: []*image.Paletted{
			frame(image.Rect(0, 0, 128, 128), 0), frame(left, 1), frame(left, 2), frame(left, 1), frame(image.Rect(0, 0, 1, 1), 2),
		},
		Delay:    make([]int, 5),
		Disposal: []byte{gif.DisposalNone, gif.DisposalPrevious, gif.DisposalNone, gif.DisposalBackground, gif.DisposalNone},
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	out, _ := thumb(t, w, uploadBytes(t, w, b.Bytes(), ""), Thumbnail{Width: 96, Height: 96, Crop: true, Animated: true})
	got, err := gif.DecodeAll(bytes.NewReader(out))
	if err != nil || len(got.Image) != 5 {
		t.Fatalf("%v", err)
	}
	none := color.RGBA{}
	for i, want := range []color.RGBA{red, blue, red, blue, none} {
		if c := got.Image[i].At(10, 50); !near(c, want) {
			t.Errorf("frame %d: left %v, want %v", i, c, want)
		}
		if c := got.Image[i].At(80, 50); !near(c, red) {
			t.Errorf("frame %d: right %v", i, c)
		}
	}
}

// pngHead is a PNG that claims a size, with as much compressed nothing as given.
func pngHead(w, h uint32, rows int) []byte {
	var b bytes.Buffer
	b.WriteString(pngMagic)
	chunk := func(name string, data []byte) {
		_ = binary.Write(&b, binary.BigEndian, uint32(len(data)))
		b.WriteString(name)
		b.Write(data)
		_ = binary.Write(&b, binary.BigEndian, crc32.ChecksumIEEE(append([]byte(name), data...)))
	}
	head := binary.BigEndian.AppendUint32(nil, w)
	head = binary.BigEndian.AppendUint32(head, h)
	chunk("IHDR", append(head, 8, 6, 0, 0, 0))
	var z bytes.Buffer
	zw := zlib.NewWriter(&z)
	if rows > 0 {
		_, _ = zw.Write(make([]byte, rows*int(1+4*w)))
	}
	_ = zw.Close()
	chunk("IDAT", z.Bytes())
	chunk("IEND", nil)
	return b.Bytes()
}

// TestBombs is SECURITY S3: pictures that are made to exhaust who decodes them, and
// kinds of files that are not decoded at all.
func TestBombs(t *testing.T) {
	w := newWorld(t)
	tooManyFrames := gifOf(t, 1, 1, 10_000)
	wideGIF := gifOf(t, 1, 1, 1)
	binary.LittleEndian.PutUint16(wideGIF[6:], 65535)
	binary.LittleEndian.PutUint16(wideGIF[8:], 65535)
	bigJPEG := jpegOf(t, halves(16, 16))
	sof := bytes.Index(bigJPEG, []byte{0xff, 0xc0})
	binary.BigEndian.PutUint16(bigJPEG[sof+5:], 65000)
	binary.BigEndian.PutUint16(bigJPEG[sof+7:], 65000)
	for name, tt := range map[string]struct {
		file []byte
		code merr.Code
	}{
		"50,000 x 50,000 PNG":           {pngHead(50_000, 50_000, 10), merr.TooLarge},
		"20,000 x 20,000 PNG":           {pngHead(20_000, 20_000, 10), merr.TooLarge},
		"2^31 PNG":                      {pngHead(1<<31-1, 1, 0), merr.TooLarge},
		"10,000 frames":                 {tooManyFrames, merr.TooLarge},
		"65,535 x 65,535 GIF":           {wideGIF, merr.TooLarge},
		"65,000 x 65,000 JPEG":          {bigJPEG, merr.TooLarge},
		"PNG that ends":                 {pngHead(1000, 1000, 3), merr.Unknown},
		"TIFF":                          {[]byte("II*\x00\x08\x00\x00\x00\xff\xff"), merr.Unknown},
		"PSD":                           {[]byte("8BPS\x00\x01"), merr.Unknown},
		"SVG":                           {[]byte("<svg xmlns='http://www.w3.org/2000/svg'/>"), merr.Unknown},
		"BMP":                           {[]byte("BM......"), merr.Unknown},
		"AVIF":                          {[]byte("\x00\x00\x00\x20ftypavif"), merr.Unknown},
		"PNG of zero size":              {pngHead(0, 0, 0), merr.Unknown},
		"nothing":                       {nil, merr.Unknown},
		"only a magic number":           {[]byte(pngMagic), merr.Unknown},
		"WebP with a wrong first frame": {append(fixture(t, "moving.webp")[:60], "nonsense"...), merr.Unknown},
	} {
		id := uploadBytes(t, w, tt.file, "image/png")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, want := range []Thumbnail{{Width: 32, Height: 32, Crop: true}, {Width: 800, Height: 600}, {Width: 100, Height: 100, Animated: true}} {
			f, err := w.Thumbnail(w.ctx, id, want, 0)
			if err == nil {
				f.Close()
			}
			wantErr(t, name, err, tt.code)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%s: %d MB were allocated", name, n>>20)
		}
	}
}

// TestAnimationTooLong: an animation that is much work does not move.
func TestAnimationTooLong(t *testing.T) {
	w := newWorld(t)
	id := uploadBytes(t, w, gifOf(t, 1000, 1000, 70), "image/gif")
	if _, typ := thumb(t, w, id, Thumbnail{Width: 320, Height: 240, Animated: true}); typ != typeJPEG {
		t.Errorf("got %s", typ)
	}
}

// TestThumbnailsAtOnce: many callers, one thumbnail.
func TestThumbnailsAtOnce(t *testing.T) {
	w := newWorld(t)
	id := uploadBytes(t, w, jpegOf(t, halves(2000, 1000)), "")
	puts := 0
	w.blobs.putting = func() { puts++ } // one at a time, or the race detector tells
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			f, err := w.Thumbnail(w.ctx, id, Thumbnail{Width: 320, Height: 240}, 0)
			if err != nil {
				t.Errorf("thumbnail: %v", err)
				return
			}
			f.Close()
		})
	}
	wg.Wait()
	if n := w.stored(); n != 2 || puts == 0 {
		t.Errorf("%d blobs, %d puts", n, puts)
	}
}

// TestThumbnailOfWhatGoes: a thumbnail does not outlive its picture.
func TestThumbnailOfWhatGoes(t *testing.T) {
	w := newWorld(t)
	id := uploadBytes(t, w, jpegOf(t, halves(400, 400)), "")
	w.blobs.putting = func() {
		w.blobs.putting = nil
		if err := w.Delete(w.ctx, id); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	_, err := w.Thumbnail(w.ctx, id, Thumbnail{Width: 32, Height: 32, Crop: true}, 0)
	wantErr(t, "its picture is gone", err, merr.NotFound)
	w.wantNothing()
}

// TestThumbnailWaits: what takes memory waits for its turn, and not for ever.
func TestThumbnailWaits(t *testing.T) {
	w := newWorld(t)
	id := uploadBytes(t, w, jpegOf(t, halves(2000, 1000)), "")
	if err := w.decoding.Acquire(w.ctx, decodeBytes); err != nil {
		t.Fatal(err)
	}
	w.patience = time.Millisecond
	_, err := w.Thumbnail(w.ctx, id, Thumbnail{Width: 320, Height: 240}, 0)
	var e *merr.Error
	if !errors.As(err, &e) || e.Status != 503 || e.RetryAfter == 0 {
		t.Errorf("without memory: %v", err)
	}
	w.patience = thumbnailTimeout
	w.decoding.Release(decodeBytes)
	thumb(t, w, id, Thumbnail{Width: 320, Height: 240})
	if !w.decoding.TryAcquire(decodeBytes) {
		t.Error("the memory was not given back")
	}
}

// BenchmarkThumbnail is a photo of 12 million pixels.
func BenchmarkThumbnail(b *testing.B) {
	img := image.NewYCbCr(image.Rect(0, 0, 4000, 3000), image.YCbCrSubsampleRatio420)
	for i := range img.Y {
		img.Y[i] = uint8(i*7 + i/4000*13)
	}
	file := jpegOf(b, img)
	for _, s := range []size{{96, 96, true}, {800, 600, false}} {
		b.Run(fmt.Sprint(s), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p, err := probe(bytes.NewReader(file), int64(len(file)))
				if err != nil {
					b.Fatal(err)
				}
				if err := still(io.Discard, bytes.NewReader(file), p, s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
