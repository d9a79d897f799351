package media

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"image/draw"
	"io"

	"golang.org/x/image/webp"
)

// A thumbnail of an animated WebP that moves is an animated PNG: there is no encoder
// for WebP in Go that has stood for long, and GIF has neither the colours nor the soft
// edges that stickers have. Like one of a GIF, it is made of whole frames, put
// together as a viewer does.

// maxMoving is the most bytes of a thumbnail that moves. One that would be larger
// stands still: the original is hardly larger then.
const maxMoving = 16 << 20

// errMoving: the thumbnail would be larger than maxMoving.
var errMoving = errors.New("media: the animation is too large")

// webpFrame is a frame of an animated WebP. spec: RFC 9649 §2.7.1.1.
type webpFrame struct {
	rect image.Rectangle
	// delay is how long it is shown, in ms.
	delay int
	// over: it is blended with what is there; else it takes its place.
	over bool
	// dispose: what it showed is taken away after it.
	dispose bool
	// still is the frame as a file of its own.
	still []byte
}

// webpReader reads the frames of a WebP.
type webpReader struct {
	r      *bufio.Reader
	canvas image.Rectangle
	// loops is how often the frames are shown, 0 for ever. It is known with the first.
	loops int
}

// newWebPReader begins to read a WebP whose canvas has a size.
func newWebPReader(r io.Reader, width, height int) (*webpReader, error) {
	w := &webpReader{r: bufio.NewReader(r), canvas: image.Rect(0, 0, width, height)}
	if _, err := w.r.Discard(riffHead); err != nil {
		return nil, errFormat
	}
	return w, nil
}

const webpFrameHead = 16

// next returns the next frame, nil at the end; where the file ends early, that is the
// end. whole: with its content.
func (w *webpReader) next(whole bool) (*webpFrame, error) {
	for {
		head, err := readBytes(w.r, riffChunk)
		if err != nil {
			return nil, nil
		}
		n := int64(binary.LittleEndian.Uint32(head[4:]))
		n += n & 1
		switch {
		case string(head[:4]) == "ANMF":
			return w.frame(n, whole)
		case string(head[:4]) == "ANIM" && n >= 6:
			anim, err := readBytes(w.r, 6) // the colour behind it all, which nobody shows
			if err != nil {
				return nil, nil
			}
			w.loops = int(binary.LittleEndian.Uint16(anim[4:]))
			n -= 6
		}
		if copyBytes(nil, w.r, n) != nil {
			return nil, nil
		}
	}
}

// frame reads a frame of n bytes.
func (w *webpReader) frame(n int64, whole bool) (*webpFrame, error) {
	if n > maxFrameBytes {
		return nil, errLarge()
	}
	if n < webpFrameHead+riffChunk {
		return nil, errFormat
	}
	head, err := readBytes(w.r, webpFrameHead)
	if err != nil {
		return nil, atEnd(err)
	}
	u24 := func(i int) int { return int(head[i]) | int(head[i+1])<<8 | int(head[i+2])<<16 }
	x, y := 2*u24(0), 2*u24(3)
	f := &webpFrame{
		rect:  image.Rect(x, y, x+1+u24(6), y+1+u24(9)),
		delay: u24(12), over: head[15]&2 == 0, dispose: head[15]&1 != 0,
	}
	if !f.rect.In(w.canvas) {
		return nil, errFormat // its memory is not what was reserved
	}
	n -= webpFrameHead
	if !whole {
		if err := copyBytes(nil, w.r, n); err != nil {
			return nil, atEnd(err)
		}
		return f, nil
	}
	data, err := readBytes(w.r, n)
	if err != nil {
		return nil, atEnd(err)
	}
	const alphaFlag = 1 << 4
	flags := byte(0)
	if string(data[:4]) == "ALPH" {
		flags = alphaFlag
	}
	var b bytes.Buffer
	b.WriteString("RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00")
	b.Write([]byte{flags, 0, 0, 0})
	b.Write(head[6:12]) // its own width and height
	b.Write(data)
	f.still = b.Bytes()
	binary.LittleEndian.PutUint32(f.still[4:], uint32(len(f.still)-8))
	return f, nil
}

// atEnd makes a frame that is cut off the end of the animation.
func atEnd(err error) error {
	if errors.Is(err, errFormat) {
		return nil
	}
	return err
}

// firstFrame returns the first frame of an animated WebP as a picture of its own,
// nil for one that does not move.
func firstFrame(r io.Reader, width, height int) ([]byte, error) {
	w, err := newWebPReader(r, width, height)
	if err != nil {
		return nil, err
	}
	f, err := w.next(true)
	if err != nil || f == nil {
		return nil, err
	}
	return f.still, nil
}

// scanWebP counts the frames of a WebP, up to one more than there may be.
func scanWebP(r io.Reader, width, height int) (frames int, err error) {
	w, err := newWebPReader(r, width, height)
	for err == nil && frames <= maxFrames {
		var f *webpFrame
		if f, err = w.next(false); f == nil {
			break
		}
		frames++
	}
	return frames, err
}

// movingWebP writes an animated thumbnail of a WebP. errMoving if it gets too large.
func movingWebP(w io.Writer, r io.Reader, p *probed, to size) error {
	in, err := newWebPReader(r, p.width, p.height)
	if err != nil {
		return err
	}
	src, tw, th := p.target(to)
	out := &movingPNG{width: tw, height: th, most: maxMoving}
	canvas := image.NewRGBA(image.Rect(0, 0, p.width, p.height))
	for range maxFrames {
		f, err := in.next(true)
		if err != nil {
			return err
		}
		if f == nil {
			break
		}
		img, err := webp.Decode(bytes.NewReader(f.still))
		if err != nil {
			return err
		}
		op := draw.Src
		if f.over {
			op = draw.Over
		}
		draw.Draw(canvas, f.rect, img, img.Bounds().Min, op)
		if err := out.add(shrink(canvas, src, tw, th), f.delay); err != nil {
			return err
		}
		if f.dispose {
			draw.Draw(canvas, f.rect, image.Transparent, image.Point{}, draw.Src)
		}
	}
	return out.write(w, in.loops)
}
