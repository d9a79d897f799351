package media

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
)

// Pictures often say where they were taken, and those who send them do not know.
// What says so is cut out of the file: the picture itself is not encoded again, so
// it loses nothing. A picture that does not say so is kept as it came, to the byte.
//
// What a picture says beside that goes with it: maker notes, previews and videos
// behind the picture may hold the same place in forms that nobody documents. Only
// the orientation is kept, without which it would stand on its side.

// format is how metadata stands in a kind of file.
type format interface {
	// walk copies a file from r to w and hands each piece of metadata to edit, which
	// returns what to write in its place. With w nil it only looks, and may end
	// before the end of the file. errFormat if it is not such a file.
	walk(r *bufio.Reader, w io.Writer, edit editor) error
}

// editor is shown a piece of metadata. keep false stands for leaving it away.
type editor func(kind metaKind, data []byte) (out []byte, keep bool)

type metaKind uint8

const (
	// metaExif is a TIFF structure.
	metaExif metaKind = iota + 1
	// metaXMP is XML; metaXMPMore a part of it, or one that is compressed.
	metaXMP
	metaXMPMore
	// metaOther may say something of the place in other words, or lead to data
	// behind the picture.
	metaOther
)

var errFormat = errors.New("media: malformed picture")

func formatOf(typ string) format {
	switch typ {
	case typeJPEG:
		return jpegFormat{}
	case typePNG:
		return pngFormat{}
	case typeWebP:
		return webpFormat{}
	}
	return nil
}

// findExif reads the metadata of a picture. It never fails: what cannot be read
// says nothing of the orientation.
func findExif(f format, r io.Reader) (all exif, place bool) {
	_ = f.walk(bufio.NewReader(r), nil, func(kind metaKind, data []byte) ([]byte, bool) {
		switch kind {
		case metaExif:
			e := readExif(data)
			place = place || e.place
			if all.orientation == 0 {
				all.orientation = e.orientation
			}
		case metaXMP:
			place = place || xmpSaysPlace(data)
		case metaXMPMore:
			place = true
		}
		return data, true
	})
	return all, place
}

// withoutPlace returns the spool of a picture or a video without what says where it
// was taken, or nil if it does not say so or is neither.
func (s *Service) withoutPlace(sp *spool, head []byte) (*spool, error) {
	if isBoxes(head) {
		patches := findPlaces(sp, sp.size)
		if patches == nil {
			return nil, nil
		}
		return s.newSpool(func(w io.Writer) error { return patched(w, sp, sp.size, patches) })
	}
	f := formatOf(sniff(head))
	if f == nil {
		return nil, nil
	}
	whole := func() *io.SectionReader { return io.NewSectionReader(sp, 0, sp.size) }
	if _, place := findExif(f, whole()); !place {
		return nil, nil
	}
	clean, err := s.newSpool(func(w io.Writer) error {
		err := f.walk(bufio.NewReader(whole()), w, onlyUpright)
		if errors.Is(err, errFormat) {
			// It ends early, or goes on as nothing that can be read: what came until then
			// is all that a program would show.
			err = nil
		}
		return err
	})
	return clean, err
}

// onlyUpright is the editor that leaves nothing but the orientation.
func onlyUpright(kind metaKind, data []byte) ([]byte, bool) {
	if kind != metaExif {
		return nil, false
	}
	out := readExif(data).onlyOrientation()
	return out, out != nil
}

// copied writes to w unless it is nil.
func copied(w io.Writer, b []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(b)
	return err
}

// copyBytes copies n bytes from r to w, or passes over them if w is nil.
func copyBytes(w io.Writer, r *bufio.Reader, n int64) error {
	if w == nil {
		w = io.Discard
	}
	if _, err := io.CopyN(w, r, n); err != nil {
		return ended(err)
	}
	return nil
}

// ended makes the end of a file inside a picture a fault of the picture.
func ended(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errFormat
	}
	return err
}

func readBytes(r *bufio.Reader, n int64) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, ended(err)
}

// The markers of JPEG. spec: ITU T.81 §B.1.
const (
	markSOI, markEOI, markSOS = 0xd8, 0xd9, 0xda
	markRST0, markRST7        = 0xd0, 0xd7
	markTEM                   = 0x01
	markAPP1, markAPP2        = 0xe1, 0xe2
	markAPP13                 = 0xed
)

type jpegFormat struct{}

// walk implements format. What stands behind the end of the picture is not copied:
// other pictures and videos, with metadata of their own.
func (jpegFormat) walk(r *bufio.Reader, w io.Writer, edit editor) error {
	start, err := readBytes(r, 2)
	if err != nil || start[0] != 0xff || start[1] != markSOI {
		return errFormat
	}
	if err := copied(w, start); err != nil {
		return err
	}
	mark, err := jpegMark(r)
	for err == nil {
		switch {
		case mark == markEOI:
			return copied(w, []byte{0xff, mark})
		case mark == markTEM, mark >= markRST0 && mark <= markRST7:
			err = copied(w, []byte{0xff, mark})
		default:
			err = jpegSegment(r, w, mark, edit)
		}
		switch {
		case err != nil:
		case mark != markSOS:
			mark, err = jpegMark(r)
		case w == nil:
			return nil // metadata comes before the first scan
		default:
			mark, err = jpegScan(r, w)
		}
	}
	return err
}

// jpegMark reads the next marker. Bytes before it that belong to nothing are passed
// over, as decoders do.
func jpegMark(r *bufio.Reader) (byte, error) {
	for {
		b, err := r.ReadByte()
		found := b == 0xff
		for err == nil && b == 0xff {
			b, err = r.ReadByte()
		}
		if err != nil {
			return 0, ended(err)
		}
		if found && b != 0 {
			return b, nil
		}
	}
}

// jpegSegment copies a segment behind its marker, edited if it is metadata.
func jpegSegment(r *bufio.Reader, w io.Writer, mark byte, edit editor) error {
	size, err := readBytes(r, 2)
	if err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint16(size)) - 2
	if n < 0 {
		return errFormat
	}
	data, err := readBytes(r, n)
	if err != nil {
		return err
	}
	if kind, prefix := jpegMeta(mark, data); kind != 0 {
		out, keep := edit(kind, data[len(prefix):])
		if !keep {
			return nil
		}
		data = append([]byte(prefix), out...)
		binary.BigEndian.PutUint16(size, uint16(len(data)+2))
	}
	if err := copied(w, append([]byte{0xff, mark}, size...)); err != nil {
		return err
	}
	return copied(w, data)
}

// jpegMeta says what metadata a segment holds, 0 for none, and the prefix that
// marks it.
func jpegMeta(mark byte, data []byte) (metaKind, string) {
	for _, m := range []struct {
		mark   byte
		prefix string
		kind   metaKind
	}{
		{markAPP1, exifMagic, metaExif},
		{markAPP1, "http://ns.adobe.com/xap/1.0/\x00", metaXMP},
		{markAPP1, "http://ns.adobe.com/xmp/extension/\x00", metaXMP},
		{markAPP2, "MPF\x00", metaOther},
		{markAPP13, "Photoshop 3.0\x00", metaOther},
	} {
		if mark == m.mark && bytes.HasPrefix(data, []byte(m.prefix)) {
			return m.kind, m.prefix
		}
	}
	return 0, ""
}

// jpegScan copies the data of a scan and returns the marker behind it.
func jpegScan(r *bufio.Reader, w io.Writer) (byte, error) {
	for {
		chunk, err := r.ReadSlice(0xff)
		if err == nil {
			chunk = chunk[:len(chunk)-1]
		}
		if werr := copied(w, chunk); werr != nil {
			return 0, werr
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil {
			return 0, ended(err)
		}
		next := byte(0xff)
		for next == 0xff {
			if next, err = r.ReadByte(); err != nil {
				return 0, ended(err)
			}
		}
		if next != 0 && (next < markRST0 || next > markRST7) {
			return next, nil
		}
		if err := copied(w, []byte{0xff, next}); err != nil {
			return 0, err
		}
	}
}

const (
	pngMagic = "\x89PNG\r\n\x1a\n"
	// pngChunk is a chunk without its data: length, name, sum.
	pngName, pngSum = 8, 4
	// maxMeta is the most metadata of one piece that is looked at. What is larger
	// counts as metadata that may say anything.
	maxMeta = 4 << 20
)

type pngFormat struct{}

// walk implements format. spec: PNG §5.3, §11.3.
func (pngFormat) walk(r *bufio.Reader, w io.Writer, edit editor) error {
	start, err := readBytes(r, int64(len(pngMagic)))
	if err != nil || string(start) != pngMagic {
		return errFormat
	}
	if err := copied(w, start); err != nil {
		return err
	}
	for {
		head, err := readBytes(r, pngName)
		if err != nil {
			return err
		}
		n, name := int64(binary.BigEndian.Uint32(head)), string(head[4:])
		switch name {
		case "eXIf", "tEXt", "zTXt", "iTXt":
			err = pngText(r, w, head, n, edit)
		default:
			if err = copied(w, head); err == nil {
				err = copyBytes(w, r, n+pngSum)
			}
		}
		if err != nil || name == "IEND" {
			return err // nothing belongs behind the end
		}
	}
}

// pngText copies a chunk of metadata behind its head. Chunks that are changed get
// a sum of their own.
func pngText(r *bufio.Reader, w io.Writer, head []byte, n int64, edit editor) error {
	if n > maxMeta {
		_, keep := edit(metaXMPMore, nil)
		if !keep {
			w = nil
		}
		if err := copied(w, head); err != nil {
			return err
		}
		return copyBytes(w, r, n+pngSum)
	}
	data, err := readBytes(r, n)
	if err != nil {
		return err
	}
	sum, err := readBytes(r, pngSum)
	if err != nil {
		return err
	}
	if kind := pngMeta(string(head[4:]), data); kind != 0 {
		out, keep := edit(kind, data)
		if !keep {
			return nil
		}
		data = out
		binary.BigEndian.PutUint32(head, uint32(len(data)))
		crc := crc32.NewIEEE()
		_, _ = crc.Write(head[4:]) // a hash takes everything
		_, _ = crc.Write(data)
		sum = crc.Sum(nil)
	}
	for _, part := range [][]byte{head, data, sum} {
		if err := copied(w, part); err != nil {
			return err
		}
	}
	return nil
}

func pngMeta(name string, data []byte) metaKind {
	if name == "eXIf" {
		return metaExif
	}
	keyword, rest, _ := bytes.Cut(data, []byte{0})
	switch {
	case string(keyword) == "XML:com.adobe.xmp" && name == "iTXt" && len(rest) > 0 && rest[0] == 0:
		return metaXMP
	case string(keyword) == "XML:com.adobe.xmp", strings.HasPrefix(string(keyword), "Raw profile type "):
		// Compressed, or Exif in hexadecimal, as ImageMagick writes it.
		return metaXMPMore
	}
	return 0
}

type webpFormat struct{}

const riffHead, riffChunk = 12, 8

// walk implements format. Metadata that is left away is written over with spaces,
// or for Exif padded with zeros: so no length and no flag of the file changes.
// spec: RFC 9649 §2.
func (webpFormat) walk(r *bufio.Reader, w io.Writer, edit editor) error {
	start, err := readBytes(r, riffHead)
	if err != nil || sniff(start) != typeWebP {
		return errFormat
	}
	if err := copied(w, start); err != nil {
		return err
	}
	// The length counts what stands behind it, "WEBP" among that.
	left := int64(binary.LittleEndian.Uint32(start[4:])) - 4
	for left >= riffChunk {
		head, err := readBytes(r, riffChunk)
		if err != nil {
			return err
		}
		if err := copied(w, head); err != nil {
			return err
		}
		n := int64(binary.LittleEndian.Uint32(head[4:]))
		n += n & 1
		left -= riffChunk + n
		if err := webpChunk(r, w, string(head[:4]), n, edit); err != nil {
			return err
		}
	}
	return nil
}

func webpChunk(r *bufio.Reader, w io.Writer, name string, n int64, edit editor) error {
	kind := map[string]metaKind{"EXIF": metaExif, "XMP ": metaXMP}[name]
	if kind == 0 {
		return copyBytes(w, r, n)
	}
	if n > maxMeta {
		if _, keep := edit(metaXMPMore, nil); keep || w == nil {
			return copyBytes(w, r, n)
		}
		if err := copyBytes(nil, r, n); err != nil {
			return err
		}
		return copyBytes(w, bufio.NewReader(filled(' ')), n)
	}
	data, err := readBytes(r, n)
	if err != nil {
		return err
	}
	prefix := ""
	if kind == metaExif && bytes.HasPrefix(data, []byte(exifMagic)) {
		prefix = exifMagic // some write it as JPEG has it
	}
	out, keep := edit(kind, data[len(prefix):])
	switch {
	case !keep && kind == metaXMP:
		data = bytes.Repeat([]byte{' '}, len(data))
	case !keep:
		clear(data)
	default:
		clear(data[copy(data, append([]byte(prefix), out...)):])
	}
	return copied(w, data)
}

// filled is one byte without end.
type filled byte

func (f filled) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(f)
	}
	return len(b), nil
}
