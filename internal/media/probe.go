package media

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"

	"golang.org/x/image/webp"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	// decodeBytes is the memory that decoded pictures may take at the same time on
	// this node, and so the most that one may take: a photo of 64 million pixels
	// with colours at full resolution, 48 million with transparency.
	decodeBytes = 192 << 20
	// maxSide bounds width and height: the arithmetic stays far from its limits, and
	// a line of pixels is small.
	maxSide = 32768
	// maxFrames bounds animations: 40 s at 25 frames a second.
	maxFrames = 1000
	// maxFrameBytes bounds a frame of an animated WebP.
	maxFrameBytes = 16 << 20
)

// probed is what the head of a picture says of it, before anything is decoded.
type probed struct {
	typ           string
	width, height int
	// cost is the memory that decoding takes, in bytes.
	cost int64
	exif exif
	// frames and area are the number of frames of a GIF and their pixels together. Those
	// of a WebP are counted when it is to move.
	frames int
	area   int64
	// still, if not nil, is the first frame of an animated WebP as a file of its own.
	still []byte
}

func errUnsupported() error {
	return merr.New(http.StatusBadRequest, merr.Unknown, "There is no thumbnail of this media: only of PNG, JPEG, GIF and WebP")
}

func errPicture(err error) error {
	return merr.New(http.StatusBadRequest, merr.Unknown, "The picture cannot be read").Because(err)
}

func errLarge() error {
	return merr.TooLargeErr("The picture is too large to make a thumbnail of it")
}

// probe recognises a picture by its first bytes and reads its dimensions. It fails
// for what is no picture and for one that would take too much to decode.
func probe(r io.ReaderAt, size int64) (*probed, error) {
	whole := func() io.Reader { return bufio.NewReader(io.NewSectionReader(r, 0, size)) }
	head := make([]byte, sniffBytes)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read picture: %w", err)
	}
	p := &probed{typ: sniff(head[:n])}
	var c image.Config
	each := int64(4) // bytes of a pixel
	switch p.typ {
	case typePNG:
		c, err = png.DecodeConfig(whole())
		each = modelBytes(c.ColorModel)
	case typeJPEG:
		c, err = jpeg.DecodeConfig(whole())
		if err == nil {
			each, err = jpegBytes(bufio.NewReader(io.NewSectionReader(r, 0, size)))
		}
	case typeGIF:
		c, err = gif.DecodeConfig(whole())
		each = 1 + 4 // and a canvas, where the first frame is a part
		if err == nil {
			p.frames, p.area, err = scanGIF(bufio.NewReader(io.NewSectionReader(r, 0, size)))
		}
	case typeWebP:
		if c, err = webp.DecodeConfig(whole()); err == nil {
			p.still, err = firstFrame(io.NewSectionReader(r, 0, size), c.Width, c.Height)
		}
	default:
		return nil, errUnsupported()
	}
	if merr.Is(err, merr.TooLarge) {
		return nil, err
	}
	if err != nil || c.Width <= 0 || c.Height <= 0 {
		return nil, errPicture(err)
	}
	p.width, p.height, p.cost = c.Width, c.Height, int64(c.Width)*int64(c.Height)*each
	if c.Width > maxSide || c.Height > maxSide || p.cost > decodeBytes || p.frames > maxFrames {
		return nil, errLarge()
	}
	if f := formatOf(p.typ); f != nil {
		p.exif, _ = findExif(f, whole())
	}
	return p, nil
}

// modelBytes is what a pixel takes in memory.
func modelBytes(m color.Model) int64 {
	switch m {
	case color.GrayModel:
		return 1
	case color.Gray16Model:
		return 2
	case color.RGBA64Model, color.NRGBA64Model:
		return 8
	}
	if _, ok := m.(color.Palette); ok {
		return 1
	}
	return 4
}

// jpegBytes is what a pixel of a JPEG takes while it is decoded: one byte for each
// component, and the coefficients too if it is progressive. It takes colours to be
// at full resolution, which photos do not have.
func jpegBytes(r *bufio.Reader) (int64, error) {
	const (
		components   = 3
		coefficients = 4 * components
		sof2         = 0xc2
	)
	if _, err := r.Discard(2); err != nil {
		return 0, errFormat
	}
	for {
		mark, err := jpegMark(r)
		if err != nil {
			return 0, err
		}
		switch {
		case mark == sof2:
			return components + coefficients, nil
		case mark == markSOS, mark == markEOI:
			return components + 1, nil // a fourth component in CMYK
		case mark == markTEM, mark >= markRST0 && mark <= markRST7:
			continue
		}
		if err := jpegSegment(r, nil, mark, func(metaKind, []byte) ([]byte, bool) { return nil, false }); err != nil {
			return 0, err
		}
	}
}

// The blocks of GIF. spec: GIF89a §12 and on.
const (
	gifExtension, gifImage, gifTrailer = 0x21, 0x2c, 0x3b
	gifHead, gifDescriptor             = 13, 9
	gifTable                           = 0x80 // in the flags: a table of colours follows
)

// scanGIF counts the frames of a GIF and their pixels without decoding them. A file
// that ends early has the frames that it has.
func scanGIF(r *bufio.Reader) (frames int, area int64, err error) {
	table := func(flags byte) error {
		if flags&gifTable == 0 {
			return nil
		}
		return copyBytes(nil, r, 3<<(flags&7+1))
	}
	head, err := readBytes(r, gifHead)
	if err != nil {
		return 0, 0, err
	}
	if err := table(head[10]); err != nil {
		return 0, 0, err
	}
	for frames <= maxFrames {
		block, err := r.ReadByte()
		if err != nil || block == gifTrailer {
			return frames, area, nil
		}
		switch block {
		case gifExtension:
			_, err = r.Discard(1)
		case gifImage:
			var d []byte
			if d, err = readBytes(r, gifDescriptor); err != nil {
				return frames, area, nil
			}
			frames++
			area += int64(binary.LittleEndian.Uint16(d[4:])) * int64(binary.LittleEndian.Uint16(d[6:]))
			if err = table(d[8]); err == nil {
				_, err = r.Discard(1) // the size of the codes
			}
		default:
			return 0, 0, errFormat
		}
		if err != nil || !skipBlocks(r) {
			return frames, area, nil
		}
	}
	return frames, area, nil
}

// skipBlocks passes over the data of a block, and reports whether there was all of
// it.
func skipBlocks(r *bufio.Reader) bool {
	for {
		n, err := r.ReadByte()
		if err != nil {
			return false
		}
		if n == 0 {
			return true
		}
		if _, err := r.Discard(int(n)); err != nil {
			return false
		}
	}
}
