package media

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/draw"
	"io"
	"math"
)

// movingPNG is an animated PNG that is being made, with 8 bits for each of red, green,
// blue and alpha. A frame holds only what differs from the one before it, which stays
// there: most of a sticker stands still. spec: PNG (third edition) §4.9, §11.3.2.1.
type movingPNG struct {
	width, height int
	frames        []pngFrame
	// last is what the last frame shows.
	last *image.NRGBA
	// bytes is how large the frames are, most how large they may be.
	bytes, most int
}

type pngFrame struct {
	rect image.Rectangle
	// delay is how long it is shown, in ms.
	delay int
	data  []byte // compressed
}

// add adds a frame. errMoving if that makes it too large.
func (m *movingPNG) add(img *image.RGBA, delay int) error {
	next := image.NewNRGBA(image.Rect(0, 0, m.width, m.height))
	draw.Draw(next, next.Rect, img, img.Rect.Min, draw.Src)
	rect := next.Rect
	if m.last != nil {
		rect = differing(m.last, next)
	}
	if rect.Empty() { // the one before is shown for longer
		m.frames[len(m.frames)-1].delay += delay
		return nil
	}
	data, err := filteredPNG(next, rect)
	if err != nil {
		return err
	}
	if m.bytes += len(data); m.bytes > m.most {
		return errMoving
	}
	m.frames, m.last = append(m.frames, pngFrame{rect, delay, data}), next
	return nil
}

// differing is where two pictures of one size differ.
func differing(a, b *image.NRGBA) (out image.Rectangle) {
	const pixel = 4
	for y := range a.Rect.Dy() {
		p, q := a.Pix[y*a.Stride:(y+1)*a.Stride], b.Pix[y*b.Stride:(y+1)*b.Stride]
		if bytes.Equal(p, q) {
			continue
		}
		from, to := 0, len(p)
		for bytes.Equal(p[from:from+pixel], q[from:from+pixel]) {
			from += pixel
		}
		for bytes.Equal(p[to-pixel:to], q[to-pixel:to]) {
			to -= pixel
		}
		out = out.Union(image.Rect(from/pixel, y, to/pixel, y+1))
	}
	return out
}

// filteredPNG returns a part of a picture as the data of a PNG: each line as it is, or
// as the difference from what is left of it or above it, whichever looks smallest.
func filteredPNG(img *image.NRGBA, rect image.Rectangle) ([]byte, error) {
	const pixel = 4
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	n := pixel * rect.Dx()
	above := make([]byte, n)
	lines := [3][]byte{make([]byte, 1+n), make([]byte, 1+n), make([]byte, 1+n)} // none, left, above
	for y := rect.Min.Y; y < rect.Max.Y; y++ {
		line := img.Pix[img.PixOffset(rect.Min.X, y):][:n]
		for i, v := range line {
			left := byte(0)
			if i >= pixel {
				left = line[i-pixel]
			}
			lines[0][1+i], lines[1][1+i], lines[2][1+i] = v, v-left, v-above[i]
		}
		best, least := 0, math.MaxInt
		for k := range lines {
			lines[k][0] = byte(k)
			sum := 0
			for _, v := range lines[k][1:] {
				sum += abs(int(int8(v)))
			}
			if sum < least {
				best, least = k, sum
			}
		}
		if _, err := z.Write(lines[best]); err != nil {
			return nil, err
		}
		above = line
	}
	err := z.Close()
	return b.Bytes(), err
}

func abs(n int) int { return max(n, -n) }

// maxDelay is the longest time, in ms, that a frame can be shown.
const maxDelay = math.MaxUint16

// write writes the file. loops is how often the frames are shown, 0 for ever.
func (m *movingPNG) write(w io.Writer, loops int) error {
	if len(m.frames) == 0 {
		return errFormat
	}
	u16, u32 := binary.BigEndian.AppendUint16, binary.BigEndian.AppendUint32
	b := []byte(pngMagic)
	head := u32(u32(nil, uint32(m.width)), uint32(m.height))
	b = appendChunk(b, "IHDR", append(head, 8, 6, 0, 0, 0)) // 8 bits each of RGBA
	b = appendChunk(b, "acTL", u32(u32(nil, uint32(len(m.frames))), uint32(loops)))
	serial := uint32(0)
	for i, f := range m.frames {
		c := u32(nil, serial)
		for _, v := range []int{f.rect.Dx(), f.rect.Dy(), f.rect.Min.X, f.rect.Min.Y} {
			c = u32(c, uint32(v))
		}
		c = u16(u16(c, uint16(min(f.delay, maxDelay))), 1000)
		b = appendChunk(b, "fcTL", append(c, 0, 0)) // stays, and takes the place of what was there
		serial++
		if i == 0 {
			b = appendChunk(b, "IDAT", f.data)
			continue
		}
		b = appendChunk(b, "fdAT", append(u32(nil, serial), f.data...))
		serial++
	}
	_, err := w.Write(appendChunk(b, "IEND", nil))
	return err
}

func appendChunk(b []byte, name string, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	from := len(b)
	b = append(append(b, name...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[from:]))
}
