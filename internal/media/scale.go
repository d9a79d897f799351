package media

import (
	"image"
	"image/draw"
)

// stripRows is how many rows of a picture are converted at a time.
const stripRows = 16

// shrink scales the part src of a picture down to w times h pixels, none larger
// than src. Each new pixel is the mean of the area it covers: nothing is skipped, so
// fine patterns do not flicker, and it is a few operations for each source pixel.
// Colours are premultiplied, so what is transparent does not stain its neighbours.
func shrink(img image.Image, src image.Rectangle, w, h int) *image.RGBA {
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	cols := spread(src.Dx(), w)
	rows := spread(src.Dy(), h)
	strip := image.NewRGBA(image.Rect(0, 0, src.Dx(), stripRows))
	line := make([]float32, 4*w)
	// sums holds the row being made and the one behind it, which a source row may
	// reach into.
	sums, behind := make([]float32, 4*w), make([]float32, 4*w)
	at := 0
	for y := range rows {
		if y%stripRows == 0 {
			part := image.Rect(0, 0, src.Dx(), min(stripRows, src.Dy()-y))
			draw.Draw(strip, part, img, src.Min.Add(image.Pt(0, y)), draw.Src)
		}
		squeeze(line, strip.Pix[(y%stripRows)*strip.Stride:], cols)
		s := rows[y]
		if s.to != at {
			store(out, at, sums)
			sums, behind = behind, sums
			clear(behind)
			at = s.to
		}
		for i, v := range line {
			sums[i] += v * s.share
			if s.rest > 0 {
				behind[i] += v * s.rest
			}
		}
	}
	store(out, at, sums)
	return out
}

// share says where a source pixel goes: share of it to the pixel to, rest to the
// one behind that.
type share struct {
	to          int
	share, rest float32
}

// spread divides n source pixels among m new ones, m not above n.
func spread(n, m int) []share {
	list := make([]share, n)
	for i := range list {
		// In units of 1/n of a new pixel: source pixel i covers from i*m to (i+1)*m.
		from, to := int64(i)*int64(m), int64(i+1)*int64(m)
		at := from / int64(n)
		edge := (at + 1) * int64(n)
		s := share{to: int(at)}
		if to > edge {
			s.rest = float32(to-edge) / float32(n)
			to = edge
		}
		s.share = float32(to-from) / float32(n)
		list[i] = s
	}
	return list
}

// squeeze makes one line of the new width of a line of pixels.
func squeeze(line []float32, pix []uint8, cols []share) {
	clear(line)
	for i, s := range cols {
		p, to := pix[4*i:4*i+4], line[4*s.to:]
		to[0] += float32(p[0]) * s.share
		to[1] += float32(p[1]) * s.share
		to[2] += float32(p[2]) * s.share
		to[3] += float32(p[3]) * s.share
		if s.rest > 0 {
			to = to[4:]
			to[0] += float32(p[0]) * s.rest
			to[1] += float32(p[1]) * s.rest
			to[2] += float32(p[2]) * s.rest
			to[3] += float32(p[3]) * s.rest
		}
	}
}

func store(out *image.RGBA, y int, sums []float32) {
	row := out.Pix[y*out.Stride:]
	for i, v := range sums {
		row[i] = uint8(min(v+0.5, 255))
	}
}

// turn brings a picture upright. spec: TIFF 6.0, Orientation.
func turn(img *image.RGBA, orientation int) *image.RGBA {
	if orientation < 2 || orientation > 8 {
		return img
	}
	w, h := img.Rect.Dx(), img.Rect.Dy()
	size := image.Rect(0, 0, w, h)
	if orientation >= 5 {
		size = image.Rect(0, 0, h, w)
	}
	out := image.NewRGBA(size)
	for y := range h {
		for x := range w {
			to := turned(x, y, w, h, orientation)
			copy(out.Pix[out.PixOffset(to.X, to.Y):][:4], img.Pix[img.PixOffset(x, y):])
		}
	}
	return out
}

// turned is where a pixel of a picture of w times h goes.
func turned(x, y, w, h, orientation int) image.Point {
	switch orientation {
	case 2:
		return image.Pt(w-1-x, y)
	case 3:
		return image.Pt(w-1-x, h-1-y)
	case 4:
		return image.Pt(x, h-1-y)
	case 5:
		return image.Pt(y, x)
	case 6:
		return image.Pt(h-1-y, x)
	case 7:
		return image.Pt(h-1-y, w-1-x)
	case 8:
		return image.Pt(y, w-1-x)
	}
	return image.Pt(x, y)
}
