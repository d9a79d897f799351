package media

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"time"

	"golang.org/x/image/webp"

	"github.com/hubbub-chat/hubbub/internal/blob"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	// thumbnailQuality is that of JPEG: beyond it files grow, and nobody sees why.
	thumbnailQuality = 85
	// thumbnailTimeout bounds the making of a thumbnail, waiting for memory included.
	thumbnailTimeout = 30 * time.Second
	// maxAnimated is the most source pixels, of all frames together, of an animated
	// thumbnail: each frame is put together and scaled, about a second of work.
	maxAnimated = 64 << 20
)

// Thumbnail says what is wanted: a picture of at least that size.
type Thumbnail struct {
	Width, Height int
	// Crop cuts the picture to the shape asked for; otherwise it keeps its own.
	Crop bool
	// Animated prefers one that moves. Others never do.
	Animated bool
}

// size is one of the sizes that thumbnails are made in. They are few, so that no
// caller can make the server keep many of one picture.
type size struct {
	width, height int
	crop          bool
}

// sizes are the sizes in rising order. The five of the specification's advice are
// among them; the others are for large avatars and sharp screens. The last stands for
// the picture in its own size. spec: client-server §Thumbnails.
func sizes() []size {
	return []size{
		{32, 32, true},
		{96, 96, true},
		{192, 192, true},
		{512, 512, true},
		{320, 240, false},
		{640, 480, false},
		{800, 600, false},
		{1600, 1200, false},
		{maxSide, maxSide, false},
	}
}

// snap returns the next larger size. Large pieces to be cropped come whole: clients
// cut what they show to its shape.
func (t Thumbnail) snap() size {
	for _, s := range sizes() {
		if (s.crop == t.Crop || !s.crop) && s.width >= t.Width && s.height >= t.Height {
			return s
		}
	}
	return size{maxSide, maxSide, false} // nothing is larger
}

func (s size) key(blobKey string, animated bool) string {
	method, moves := "s", ""
	if s.crop {
		method = "c"
	}
	if animated {
		moves = "a"
	}
	return fmt.Sprintf("%s.%dx%d%s%s", blobKey, s.width, s.height, method, moves)
}

// thumbnailKeys are the keys of all thumbnails that there may be of a blob.
func thumbnailKeys(blobKey string) []string {
	var all []string
	for _, s := range sizes() {
		all = append(all, s.key(blobKey, false), s.key(blobKey, true))
	}
	return all
}

// Thumbnail opens a thumbnail of media, which is made if there is none yet. A
// picture that is no larger than what is asked for is its own thumbnail. Errors for
// the client: those of Open, M_UNKNOWN for what is no picture, M_TOO_LARGE for one
// that would take too much.
func (s *Service) Thumbnail(ctx context.Context, id ID, want Thumbnail, wait time.Duration) (*File, error) {
	f, outcome, err := s.thumbnail(ctx, id, want, wait)
	if err != nil {
		outcome = "failed"
	}
	s.metrics.thumbnails.WithLabelValues(outcome).Inc()
	return f, err
}

func (s *Service) thumbnail(ctx context.Context, id ID, want Thumbnail, wait time.Duration) (f *File, outcome string, err error) {
	m, c, err := s.await(ctx, id, wait)
	if err != nil {
		return nil, "", err
	}
	to := want.snap()
	key := to.key(c.Key, want.Animated)
	if f, err := s.openPicture(ctx, m, key); !errors.Is(err, blob.ErrNotFound) {
		return f, "kept", err
	}
	// Who asks for the same thumbnail meanwhile waits for this one, which therefore
	// does not end with the request that was first.
	made, err, _ := s.thumbnails.Do(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.patience)
		defer cancel()
		own, err := s.make(ctx, c.Key, key, to, want.Animated)
		if err == nil && !own {
			err = s.stillThere(ctx, m.Hash, c.Key, key)
		}
		if err != nil && ctx.Err() != nil { // whatever it was in the middle of
			err = merr.UnavailableErr(time.Second, "The thumbnail took too long").Because(err)
		}
		return own, err
	})
	if err != nil {
		return nil, "", s.vanished(ctx, id, err)
	}
	if own, _ := made.(bool); own {
		f, err = s.openPicture(ctx, m, c.Key)
		return f, "original", err
	}
	f, err = s.openPicture(ctx, m, key)
	return f, "made", err
}

// stillThere removes a thumbnail again whose picture went while it was made: nobody
// else would. A picture that goes later takes its thumbnails with it.
func (s *Service) stillThere(ctx context.Context, hash, from, key string) error {
	c, err := one[Content](ctx, s.o.Store, keys(s.o.Partitions).content(hash))
	if err != nil || c != nil && c.Key == from {
		return err
	}
	if err := s.o.Blobs.Delete(ctx, key); err != nil {
		return fmt.Errorf("remove thumbnail: %w", err)
	}
	return errNotFound()
}

// openPicture opens a picture in the blob store; its bytes say of what type it is.
func (s *Service) openPicture(ctx context.Context, m *Media, key string) (*File, error) {
	o, err := s.o.Blobs.Open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("open picture of media %s: %w", m.ID, refusal(err))
	}
	head := make([]byte, sniffBytes)
	n, err := io.ReadFull(o, head)
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
		_, err = o.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read picture of media %s: %w", m.ID, err), o.Close())
	}
	name := ""
	if m.Name != "" {
		name = "thumbnail-" + m.Name
	}
	tag := m.Hash[:tagChars]
	if len(key) > blobKeyLen {
		tag += key[blobKeyLen:]
	}
	return &File{Object: o, Type: sniff(head[:n]), Name: CleanName(name), Tag: tag}, nil
}

// make makes a thumbnail and stores it under key, unless the picture is its own.
func (s *Service) make(ctx context.Context, from, key string, to size, animated bool) (own bool, err error) {
	o, err := s.o.Blobs.Open(ctx, from)
	if err != nil {
		return false, fmt.Errorf("open picture: %w", refusal(err))
	}
	defer o.Close()
	r := &readerAt{ctx: ctx, o: o}
	p, err := probe(r, o.Size())
	if err != nil {
		return false, err
	}
	moves := p.frames > 1 || p.still != nil
	if p.fits(to) && moves == (animated && moves) {
		return true, nil
	}
	animate, err := p.animate(io.NewSectionReader(r, 0, o.Size()), animated)
	if err != nil {
		return false, errPicture(err)
	}
	cost := p.cost
	if animate {
		cost = p.movingCost()
	}
	if err := s.decoding.Acquire(ctx, min(cost, decodeBytes)); err != nil {
		return false, merr.UnavailableErr(time.Second, "Too many thumbnails are being made").Because(err)
	}
	defer s.decoding.Release(min(cost, decodeBytes))
	var b bytes.Buffer
	if err = thumbnailOf(&b, io.NewSectionReader(r, 0, o.Size()), p, to, animate); err != nil {
		return false, errPicture(err)
	}
	if err := s.o.Blobs.Put(ctx, key, &b, int64(b.Len())); err != nil {
		return false, fmt.Errorf("store thumbnail: %w", refusal(err))
	}
	return false, nil
}

// animate reports whether a thumbnail is to move. One that would be too much work
// does not.
func (p *probed) animate(r io.Reader, wanted bool) (bool, error) {
	if !wanted {
		return false, nil
	}
	if p.still != nil {
		var err error
		if p.frames, err = scanWebP(r, p.width, p.height); err != nil {
			return false, err
		}
	}
	whole := int64(p.width) * int64(p.height)
	return p.frames > 1 && p.frames <= maxFrames && p.area <= maxAnimated && int64(p.frames)*whole <= maxAnimated, nil
}

// movingCost is the memory that a thumbnail takes that moves.
func (p *probed) movingCost() int64 {
	whole := int64(p.width) * int64(p.height)
	if p.still != nil {
		// A frame as it is stored, decoded, and put together, two that come out, and those
		// that are done.
		const each = 4
		return maxFrameBytes + 2*each*whole + 3*each*whole + maxMoving
	}
	// The frames as they are stored, as they come out, and two canvases.
	return p.area + int64(p.frames)*whole + 8*whole
}

// thumbnailOf writes a thumbnail, which moves if animate is set and it does not get too
// large.
func thumbnailOf(b *bytes.Buffer, r *io.SectionReader, p *probed, to size, animate bool) error {
	switch {
	case animate && p.typ == typeGIF:
		return animation(b, r, p, to)
	case animate:
		if err := movingWebP(b, r, p, to); !errors.Is(err, errMoving) {
			return err
		}
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	return still(b, r, p, to)
}

// fits reports whether a picture is no larger than a thumbnail of it, and has its
// shape.
func (p *probed) fits(to size) bool {
	return p.width <= to.width && p.height <= to.height && (!to.crop || p.width == p.height)
}

// target says which part of the picture becomes a thumbnail of which size, in the
// picture's own orientation.
func (p *probed) target(to size) (src image.Rectangle, w, h int) {
	tw, th := to.width, to.height
	if p.exif.orientation >= 5 {
		tw, th = th, tw
	}
	src = image.Rect(0, 0, p.width, p.height)
	pw, ph := int64(p.width), int64(p.height)
	if to.crop {
		// The largest part in the middle that has the shape of the thumbnail.
		if pw*int64(th) > ph*int64(tw) {
			cut := max(ph*int64(tw)/int64(th), 1)
			src.Min.X = int(pw-cut) / 2
			src.Max.X = src.Min.X + int(cut)
		} else {
			cut := max(pw*int64(th)/int64(tw), 1)
			src.Min.Y = int(ph-cut) / 2
			src.Max.Y = src.Min.Y + int(cut)
		}
		return src, min(tw, src.Dx()), min(th, src.Dy())
	}
	switch {
	case p.width <= tw && p.height <= th:
		return src, p.width, p.height
	case pw*int64(th) > ph*int64(tw):
		return src, tw, int(max(ph*int64(tw)/pw, 1))
	}
	return src, int(max(pw*int64(th)/ph, 1)), th
}

// still writes a thumbnail that does not move.
func still(w io.Writer, r io.Reader, p *probed, to size) error {
	img, err := p.decode(bufio.NewReader(r))
	if err != nil {
		return err
	}
	src, tw, th := p.target(to)
	at := img.Bounds().Min
	if img.Bounds().Dx() < p.width || img.Bounds().Dy() < p.height {
		// The first frame of an animation may cover a part only.
		canvas := image.NewRGBA(image.Rect(0, 0, p.width, p.height))
		draw.Draw(canvas, img.Bounds(), img, at, draw.Src)
		img, at = canvas, image.Point{}
	}
	out := turn(shrink(img, src.Add(at), tw, th), p.exif.orientation)
	if out.Opaque() {
		return jpeg.Encode(w, out, &jpeg.Options{Quality: thumbnailQuality})
	}
	return png.Encode(w, out)
}

func (p *probed) decode(r io.Reader) (image.Image, error) {
	switch p.typ {
	case typePNG:
		return png.Decode(r)
	case typeJPEG:
		return jpeg.Decode(r)
	case typeGIF:
		return gif.Decode(r)
	}
	if p.still != nil {
		r = bytes.NewReader(p.still)
	}
	return webp.Decode(r)
}

// readerAt reads an object from anywhere, until the context ends. For one
// goroutine.
type readerAt struct {
	ctx context.Context
	o   blob.Object
	at  int64
}

func (r *readerAt) ReadAt(b []byte, at int64) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if at != r.at {
		if _, err := r.o.Seek(at, io.SeekStart); err != nil {
			return 0, err
		}
		r.at = at
	}
	n, err := io.ReadFull(r.o, b)
	r.at += int64(n)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}
