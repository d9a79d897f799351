package media

import (
	"bufio"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"io"
)

// animation writes an animated thumbnail of a GIF. Each frame is put together as a
// viewer does, scaled, and written whole: the files are larger than with partial
// frames and the code is one that can be trusted.
func animation(w io.Writer, r io.Reader, p *probed, to size) error {
	g, err := gif.DecodeAll(bufio.NewReader(r))
	if err != nil {
		return err
	}
	src, tw, th := p.target(to)
	out := gif.GIF{LoopCount: g.LoopCount, Delay: g.Delay, Config: image.Config{Width: tw, Height: th}}
	canvas := image.NewRGBA(image.Rect(0, 0, p.width, p.height))
	var before *image.RGBA
	for i, frame := range g.Image {
		dispose := byte(0)
		if i < len(g.Disposal) {
			dispose = g.Disposal[i]
		}
		if dispose == gif.DisposalPrevious {
			before = clone(canvas, before)
		}
		draw.Draw(canvas, frame.Rect, frame, frame.Rect.Min, draw.Over)
		out.Image = append(out.Image, paletted(shrink(canvas, src, tw, th), frame.Palette))
		// A frame is whole: what was before shows only where it is transparent.
		out.Disposal = append(out.Disposal, gif.DisposalBackground)
		switch dispose {
		case gif.DisposalBackground:
			draw.Draw(canvas, frame.Rect, image.Transparent, image.Point{}, draw.Src)
		case gif.DisposalPrevious:
			copy(canvas.Pix, before.Pix)
		}
	}
	return gif.EncodeAll(w, &out)
}

// clone copies a canvas, into into if that is not nil.
func clone(c, into *image.RGBA) *image.RGBA {
	if into == nil {
		into = image.NewRGBA(c.Rect)
	}
	copy(into.Pix, c.Pix)
	return into
}

// paletted reduces a picture to the colours of a frame, and a transparent one.
func paletted(img *image.RGBA, colours color.Palette) *image.Paletted {
	const most = 256
	palette := append(color.Palette{color.RGBA{}}, colours...)
	if len(palette) > most {
		palette = palette[:most]
	}
	out := image.NewPaletted(img.Rect, palette)
	// The nearest colour is looked for once for each of 32,768 shades.
	const bits, shades = 5, 1 << 15
	known := make([]int16, shades)
	for i := range out.Pix {
		p := img.Pix[4*i : 4*i+4]
		if p[3] < most/2 {
			continue // 0 is transparent
		}
		shade := int(p[0]>>3)<<(2*bits) | int(p[1]>>3)<<bits | int(p[2]>>3)
		if known[shade] == 0 {
			known[shade] = int16(1 + max(palette[1:].Index(color.RGBA{p[0], p[1], p[2], 0xff}), 0))
		}
		out.Pix[i] = uint8(known[shade])
	}
	return out
}
