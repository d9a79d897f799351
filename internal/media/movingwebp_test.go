package media

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

// shownFrame is what a viewer shows of an animated PNG, and for how long in ms.
type shownFrame struct {
	img   *image.NRGBA
	delay int
}

// play puts an animated PNG together as a viewer does, by the words of the
// specification: each frame's data are made a PNG of their own.
func play(t *testing.T, b []byte) (frames []shownFrame, loops int) {
	t.Helper()
	if string(b[:8]) != pngMagic {
		t.Fatal("no PNG")
	}
	var head, control []byte
	var canvas *image.NRGBA
	count, serial := 0, uint32(0)
	for b = b[8:]; len(b) > 0; {
		n := binary.BigEndian.Uint32(b)
		name, data := string(b[4:8]), b[8:8+n]
		if crc32.ChecksumIEEE(b[4:8+n]) != binary.BigEndian.Uint32(b[8+n:]) {
			t.Fatalf("the sum of %s is wrong", name)
		}
		b = b[12+n:]
		if name == "fcTL" || name == "fdAT" {
			if binary.BigEndian.Uint32(data) != serial {
				t.Fatalf("%s has number %d, want %d", name, binary.BigEndian.Uint32(data), serial)
			}
			serial++
		}
		switch name {
		case "IHDR":
			head = data
			canvas = image.NewNRGBA(image.Rect(0, 0, int(binary.BigEndian.Uint32(head)), int(binary.BigEndian.Uint32(head[4:]))))
		case "acTL":
			count, loops = int(binary.BigEndian.Uint32(data)), int(binary.BigEndian.Uint32(data[4:]))
		case "fcTL":
			control = data
		case "fdAT":
			data = data[4:]
			fallthrough
		case "IDAT":
			u := func(i int) int { return int(binary.BigEndian.Uint32(control[i:])) }
			one := appendChunk([]byte(pngMagic), "IHDR", append(append([]byte{}, control[4:12]...), head[8:]...))
			img, err := png.Decode(bytes.NewReader(appendChunk(appendChunk(one, "IDAT", data), "IEND", nil)))
			if err != nil {
				t.Fatal(err)
			}
			at := img.Bounds().Add(image.Pt(u(12), u(16)))
			if !at.In(canvas.Rect) || control[24] != 0 || control[25] != 0 {
				t.Fatalf("frame at %v, %v", at, control)
			}
			draw.Draw(canvas, at, img, image.Point{}, draw.Src)
			shown := image.NewNRGBA(canvas.Rect)
			copy(shown.Pix, canvas.Pix)
			delay := 1000 * int(binary.BigEndian.Uint16(control[20:])) / int(binary.BigEndian.Uint16(control[22:]))
			frames = append(frames, shownFrame{shown, delay})
		}
	}
	if count != len(frames) {
		t.Fatalf("%d frames are told, %d there", count, len(frames))
	}
	return frames, loops
}

// TestMovingWebP: a thumbnail of an animated WebP moves as it does, where that is
// wanted and only there.
func TestMovingWebP(t *testing.T) {
	w := newWorld(t)
	id := uploadBytes(t, w, fixture(t, "sticker.webp"), "image/webp")
	b, typ := thumb(t, w, id, Thumbnail{Width: 200, Height: 100, Animated: true})
	if typ != typePNG {
		t.Fatalf("got %s", typ)
	}
	frames, loops := play(t, b)
	if len(frames) != 4 || loops != 3 || frames[0].img.Rect.Dx() != 320 || frames[0].img.Rect.Dy() != 160 {
		t.Fatalf("%d frames of %v, %d times", len(frames), frames[0].img.Rect, loops)
	}
	none := color.RGBA{}
	for i, f := range frames {
		// The red square goes from left to right by its half, and leaves nothing behind;
		// the blue one stays. All is four fifths of what it was.
		for x := range 4 {
			want := none
			if x == i || x == i+1 {
				want = red
			}
			if got := f.img.At(32*x+16, 48); !near(got, want) {
				t.Errorf("frame %d at %d: %v, want %v", i, x, got, want)
			}
		}
		if !near(f.img.At(270, 110), blue) || !near(f.img.At(200, 10), none) {
			t.Errorf("frame %d: what stays is %v and %v", i, f.img.At(270, 110), f.img.At(200, 10))
		}
	}
	if frames[0].delay != 70 || frames[3].delay != 140 {
		t.Errorf("shown for %d and %d ms", frames[0].delay, frames[3].delay)
	}
	if b, _ := thumb(t, w, id, Thumbnail{Width: 200, Height: 100}); bytes.Contains(b, []byte("acTL")) {
		t.Error("it moves though that is not wanted")
	}
	for _, name := range []string{"moving.webp", "movinglossless.webp"} {
		id = uploadBytes(t, w, fixture(t, name), "")
		b, _ = thumb(t, w, id, Thumbnail{Width: 32, Height: 32, Crop: true, Animated: true})
		if frames, _ := play(t, b); len(frames) < 2 || frames[0].img.Rect.Dx() != 32 || frames[0].delay != 100 {
			t.Errorf("%s: %d frames", name, len(frames))
		}
		// One that is small enough is its own.
		if _, typ = thumb(t, w, id, Thumbnail{Width: 320, Height: 240, Animated: true}); typ != typeWebP {
			t.Errorf("%s, small: %s", name, typ)
		}
	}
}

// TestSameFrames: what does not change is not written again.
func TestSameFrames(t *testing.T) {
	m := &movingPNG{width: 8, height: 8, most: maxMoving}
	img := image.NewRGBA(image.Rect(0, 0, 8, 8))
	for range 3 {
		if err := m.add(img, 40); err != nil {
			t.Fatal(err)
		}
	}
	img.Set(5, 2, red)
	img.Set(3, 6, red)
	if err := m.add(img, 40); err != nil {
		t.Fatal(err)
	}
	if len(m.frames) != 2 || m.frames[0].delay != 120 || m.frames[1].rect != image.Rect(3, 2, 6, 7) {
		t.Errorf("frames %+v", m.frames)
	}
	var b bytes.Buffer
	if err := m.write(&b, 0); err != nil {
		t.Fatal(err)
	}
	frames, _ := play(t, b.Bytes())
	if got := frames[1].img; !near(got.At(5, 2), red) || !near(got.At(3, 6), red) || !near(got.At(4, 4), color.RGBA{}) {
		t.Error("the second frame is another")
	}
	if err := new(movingPNG).write(&b, 0); err == nil {
		t.Error("an animation without frames")
	}
}

// chunkOf is a chunk of a WebP.
func chunkOf(name string, data []byte) []byte {
	b := binary.LittleEndian.AppendUint32([]byte(name), uint32(len(data)))
	return append(append(b, data...), make([]byte, len(data)&1)...)
}

// movingOf is an animated WebP of frames on a canvas: their heads, and one content.
func movingOf(width, height int, content []byte, heads ...[]byte) []byte {
	u24 := func(n int) []byte { return []byte{byte(n), byte(n >> 8), byte(n >> 16)} }
	b := chunkOf("VP8X", append(append([]byte{2, 0, 0, 0}, u24(width-1)...), u24(height-1)...))
	b = append(b, chunkOf("ANIM", make([]byte, 6))...)
	for _, head := range heads {
		b = append(b, chunkOf("ANMF", append(append([]byte{}, head...), content...))...)
	}
	return append(append([]byte("RIFF"), binary.LittleEndian.AppendUint32(nil, uint32(4+len(b)))...), append([]byte("WEBP"), b...)...)
}

// TestMovingBombs is SECURITY S3: frames that are larger than the picture, or too many
// or too much, cost little; where it is too much work, the thumbnail stands still.
func TestMovingBombs(t *testing.T) {
	w := newWorld(t)
	still := fixture(t, "movinglossless.webp")
	at := bytes.Index(still, []byte("VP8L"))
	content := still[at : at+8+int(binary.LittleEndian.Uint32(still[at+4:]))]
	head := func(x, width, height int) []byte {
		u24 := func(n int) []byte { return []byte{byte(n), byte(n >> 8), byte(n >> 16)} }
		return bytes.Join([][]byte{u24(x / 2), u24(0), u24(width - 1), u24(height - 1), u24(10), {2}}, nil)
	}
	many := func(n int, h []byte) (out [][]byte) {
		for range n {
			out = append(out, h)
		}
		return out
	}
	want := Thumbnail{Width: 32, Height: 32, Crop: true, Animated: true}
	for name, file := range map[string][]byte{
		"too wide":         movingOf(64, 32, content, head(0, 16384, 16384)),
		"outside":          movingOf(64, 32, content, head(2, 64, 32)),
		"not what it says": movingOf(640, 320, content, head(0, 640, 320)),
		"later too wide":   movingOf(64, 32, content, head(0, 64, 32), head(0, 16384, 1)),
		"nothing in it":    movingOf(64, 32, nil, head(0, 64, 32)),
	} {
		_, err := w.Thumbnail(w.ctx, uploadBytes(t, w, file, ""), want, 0)
		wantErr(t, name, err, merr.Unknown)
	}
	for name, file := range map[string][]byte{
		"too many frames": movingOf(64, 32, content, many(maxFrames+1, head(0, 64, 32))...),
		"too much":        movingOf(6400, 3200, content, many(4, head(0, 64, 32))...),
	} {
		if b, _ := thumb(t, w, uploadBytes(t, w, file, ""), want); bytes.Contains(b, []byte("acTL")) {
			t.Errorf("%s: it moves", name)
		}
	}
	b, _ := thumb(t, w, uploadBytes(t, w, movingOf(64, 32, content, many(50, head(0, 64, 32))...)[:3000], ""), want)
	if frames, _ := play(t, b); len(frames) == 0 {
		t.Error("one that ends early shows nothing")
	}
}

// TestMovingTooLarge: noise that does not get smaller ends the making in time.
func TestMovingTooLarge(t *testing.T) {
	m := &movingPNG{width: 64, height: 64, most: 64 << 10}
	random := rand.New(rand.NewPCG(1, 2))
	img := image.NewRGBA(image.Rect(0, 0, m.width, m.height))
	var err error
	for n := 0; err == nil && n < 10; n++ {
		for i := 0; i < len(img.Pix); i += 8 {
			binary.LittleEndian.PutUint64(img.Pix[i:], random.Uint64()|0xff000000ff000000)
		}
		err = m.add(img, int(time.Second.Milliseconds()))
	}
	if err != errMoving || m.bytes > 2*m.most {
		t.Errorf("%v after %d bytes", err, m.bytes)
	}
}
