package media

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"
)

// Photos of phones (HEIC, AVIF) and videos (MP4, QuickTime) are files of boxes, which
// name places in the file by their offset: so what says where they were taken is
// written over, and nothing moves. spec: ISO 14496-12, ISO 23008-12, QuickTime File
// Format.
//
// Looked at are the Exif and XMP items of a photo, and of a video the boxes for its
// place, those that QuickTime names by keys, and XMP. Not looked into are tracks of
// samples that say where the camera was at each moment, as action cameras write them.

const (
	boxHead, boxLarge = 8, 16
	// maxBoxes bounds the boxes that are looked at: a video of many fragments has some
	// thousands.
	maxBoxes = 20_000
	// maxBoxDepth is how deep boxes are within each other: moov, trak, udta, meta, ilst,
	// and what that holds.
	maxBoxDepth = 8
	// maxItems bounds the items of a photo that are metadata, and their pieces.
	maxItems = 200
	// maxBoxBytes bounds what is read of a file into memory, all in all.
	maxBoxBytes = 16 << 20
)

// xmpUUID is the type of a uuid box that holds XMP.
const xmpUUID = "\xbe\x7a\xcf\xcb\x97\xa9\x42\xe8\x9c\x71\x99\x94\x91\xe3\xaf\xac"

// isBoxes reports whether a file is made of boxes, by its first bytes: old QuickTime
// files begin with another one than ftyp.
func isBoxes(head []byte) bool {
	if len(head) < boxHead {
		return false
	}
	switch string(head[4:8]) {
	case "ftyp", "moov", "mdat", "wide", "free", "skip":
		return true
	}
	return false
}

// box is a box of a file; begin and end are those of what it holds.
type box struct {
	typ        string
	at         int64 // of its head
	begin, end int64
}

// patch is a stretch of a file that is written over: with data, then with fill.
type patch struct {
	at, n int64
	data  []byte
	fill  byte
}

var errBoxes = errors.New("media: malformed boxes")

// boxReader looks for what says something of the place.
type boxReader struct {
	r    io.ReaderAt
	size int64
	// boxes and budget are what may still be looked at, and read.
	boxes  int
	budget int64
	// place: the file says where it was taken. patches are what then is written over.
	place   bool
	patches []patch
}

// findPlaces returns what has to be written over in a file of boxes so that it does not
// say where it was taken, nil if it does not say so. What is malformed says nothing.
func findPlaces(r io.ReaderAt, size int64) []patch {
	b := &boxReader{r: r, size: size, boxes: maxBoxes, budget: maxBoxBytes}
	_ = b.walk(box{end: size}, 0, b.top)
	if !b.place {
		return nil
	}
	slices.SortStableFunc(b.patches, func(x, y patch) int { return cmp.Compare(x.at, y.at) })
	return b.patches
}

// read reads a stretch of the file into memory.
func (b *boxReader) read(at, n int64) ([]byte, error) {
	if at < 0 || n < 0 || n > b.budget || at > b.size-n {
		return nil, errBoxes
	}
	b.budget -= n
	out := make([]byte, n)
	if _, err := b.r.ReadAt(out, at); err != nil && err != io.EOF {
		return nil, err
	}
	return out, nil
}

// walk calls fn with each box that another one holds. What fn cannot read keeps
// nothing else from being read.
func (b *boxReader) walk(in box, depth int, fn func(box, int)) error {
	if depth >= maxBoxDepth {
		return errBoxes
	}
	for at := in.begin; at+boxHead <= in.end; {
		if b.boxes--; b.boxes < 0 {
			return errBoxes
		}
		x, err := b.box(at, in.end)
		if err != nil {
			return err
		}
		fn(x, depth)
		at = x.end
	}
	return nil
}

// box reads the head of a box that ends at the latest at an offset.
func (b *boxReader) box(at, end int64) (box, error) {
	var head [boxLarge]byte
	n, err := b.r.ReadAt(head[:min(boxLarge, end-at)], at)
	if err != nil && err != io.EOF || n < boxHead {
		return box{}, errBoxes
	}
	x := box{typ: string(head[4:8]), at: at, begin: at + boxHead}
	switch size := int64(binary.BigEndian.Uint32(head[:])); {
	case size == 0: // to the end
		x.end = end
	case size == 1 && n == boxLarge:
		large := binary.BigEndian.Uint64(head[8:])
		if large < boxLarge || large > uint64(end-at) {
			return box{}, errBoxes
		}
		x.begin, x.end = at+boxLarge, at+int64(large)
	default:
		if size < boxHead || size > end-at {
			return box{}, errBoxes
		}
		x.end = at + size
	}
	return x, nil
}

// top looks at a box of the file itself.
func (b *boxReader) top(x box, depth int) {
	switch x.typ {
	case "moov":
		_ = b.walk(x, depth+1, b.movie)
	case "meta":
		b.meta(x, depth)
	case "uuid":
		b.uuid(x)
	}
}

// movie looks at a box of a movie, a track, or their user data.
func (b *boxReader) movie(x box, depth int) {
	switch x.typ {
	case "trak", "udta":
		_ = b.walk(x, depth+1, b.movie)
	case "meta":
		b.meta(x, depth)
	case "\xa9xyz", "loci": // QuickTime, and 3GPP TS 26.244 §8.
		b.erase(x)
	case "XMP_":
		b.xmp(x.begin, x.end)
	case "uuid":
		b.uuid(x)
	}
}

// erase makes a box one that is free. It says something of the place.
func (b *boxReader) erase(x box) {
	b.place = true
	b.patches = append(b.patches, patch{at: x.at + 4, n: 4, data: []byte("free")}, patch{at: x.begin, n: x.end - x.begin})
}

func (b *boxReader) uuid(x box) {
	id, err := b.read(x.begin, min(int64(len(xmpUUID)), x.end-x.begin))
	if err == nil && string(id) == xmpUUID {
		b.xmp(x.begin+int64(len(xmpUUID)), x.end)
	}
}

// xmp looks at XMP: what is too large to be read may say anything.
func (b *boxReader) xmp(begin, end int64) {
	if end-begin <= maxMeta {
		data, err := b.read(begin, end-begin)
		b.place = b.place || err != nil || xmpSaysPlace(data)
	} else {
		b.place = true
	}
	b.patches = append(b.patches, patch{at: begin, n: end - begin, fill: ' '})
}

// meta looks at a box of metadata: items of a photo, or values by their keys.
func (b *boxReader) meta(x box, depth int) {
	// It has a version in front, but for that of QuickTime.
	if first, err := b.read(x.begin, min(boxHead, x.end-x.begin)); err != nil || len(first) < boxHead {
		return
	} else if string(first[4:]) != "hdlr" {
		x.begin += 4
	}
	var parts struct{ iinf, iloc, idat, keys, ilst box }
	_ = b.walk(x, depth+1, func(c box, _ int) {
		switch c.typ {
		case "iinf":
			parts.iinf = c
		case "iloc":
			parts.iloc = c
		case "idat":
			parts.idat = c
		case "keys":
			parts.keys = c
		case "ilst":
			parts.ilst = c
		}
	})
	if parts.iinf.end != 0 && parts.iloc.end != 0 {
		b.items(parts.iinf, parts.iloc, parts.idat, depth)
	}
	if parts.ilst.end != 0 {
		b.values(parts.keys, parts.ilst, depth)
	}
}

// values erases what a list of values says of the place.
func (b *boxReader) values(keys, list box, depth int) {
	about := b.placeKeys(keys)
	_ = b.walk(list, depth+2, func(x box, _ int) {
		if x.typ == "\xa9xyz" || slices.Contains(about, binary.BigEndian.Uint32([]byte(x.typ))) {
			b.erase(x)
		}
	})
}

// placeKeys are the numbers of the keys that are about the place.
func (b *boxReader) placeKeys(keys box) (out []uint32) {
	if keys.end == 0 || keys.end-keys.begin > maxMeta {
		return nil
	}
	data, err := b.read(keys.begin, keys.end-keys.begin)
	if err != nil {
		return nil
	}
	c := cursor{b: data}
	c.skip(4)
	for n, count := uint32(1), c.uint(4); uint64(n) <= count && !c.bad; n++ {
		size := c.uint(4)
		if size < boxHead {
			break
		}
		key := c.take(size - 4)
		if !c.bad && bytes.Contains(key[4:], []byte("location")) {
			out = append(out, n)
		}
	}
	return out
}

// item is an item of a photo that is metadata.
type item struct {
	xmp bool
	// packed: it is compressed.
	packed bool
	pieces []patch
}

// items looks at the metadata of a photo.
func (b *boxReader) items(info, location, data box, depth int) {
	found := make(map[uint64]*item)
	head, err := b.read(info.begin, min(8, info.end-info.begin))
	if err != nil || len(head) < 6 {
		return
	}
	if info.begin += 6; head[0] != 0 {
		info.begin += 2
	}
	_ = b.walk(info, depth+2, func(x box, _ int) {
		if x.typ == "infe" && len(found) < maxItems {
			b.entry(x, found)
		}
	})
	if len(found) == 0 || location.end-location.begin > maxMeta {
		return
	}
	raw, err := b.read(location.begin, location.end-location.begin)
	if err != nil {
		return
	}
	locate(raw, data, found)
	for _, id := range slices.Sorted(maps.Keys(found)) { // one file has one result
		b.item(found[id])
	}
}

// entry reads what an item is.
func (b *boxReader) entry(x box, found map[uint64]*item) {
	data, err := b.read(x.begin, min(x.end-x.begin, 1<<10))
	if err != nil || len(data) < 4 || data[0] < 2 {
		return // older ones name no types
	}
	c := cursor{b: data[4:]}
	id := c.uint(2)
	if data[0] > 2 {
		id = id<<16 | c.uint(2)
	}
	c.skip(2)
	typ := c.take(4)
	if c.bad {
		return
	}
	switch string(typ) {
	case "Exif":
		found[id] = &item{}
	case "mime":
		_, rest, _ := bytes.Cut(c.b, []byte{0})
		content, rest, _ := bytes.Cut(rest, []byte{0})
		encoding, _, _ := bytes.Cut(rest, []byte{0})
		if string(content) == "application/rdf+xml" {
			found[id] = &item{xmp: true, packed: len(encoding) > 0}
		}
	}
}

// locate reads where items are. data is the box for those that have no place of their
// own.
func locate(raw []byte, data box, found map[uint64]*item) {
	c := cursor{b: raw}
	version := c.uint(1)
	c.skip(3)
	sizes := c.uint(2)
	offset, length, base, index := sizes>>12, sizes>>8&15, sizes>>4&15, sizes&15
	wide := uint64(2)
	if version == 2 {
		wide = 4
	}
	for n := c.uint(wide); n > 0 && !c.bad; n-- {
		id, method := c.uint(wide), uint64(0)
		if version > 0 {
			method = c.uint(2) & 15
		}
		c.skip(2)
		start := c.uint(base)
		for pieces := c.uint(2); pieces > 0 && !c.bad; pieces-- {
			if version > 0 {
				c.skip(index)
			}
			at, size := start+c.uint(offset), c.uint(length)
			i := found[id]
			if c.bad || i == nil || len(i.pieces) >= maxItems || size == 0 || int64(at) < 0 || int64(size) < 0 {
				continue
			}
			switch {
			case method == 0:
				i.pieces = append(i.pieces, patch{at: int64(at), n: int64(size)})
			case method == 1 && int64(at) <= data.end-data.begin-int64(size):
				i.pieces = append(i.pieces, patch{at: data.begin + int64(at), n: int64(size)})
			}
		}
	}
}

// item looks at one piece of metadata.
func (b *boxReader) item(i *item) {
	var data []byte
	for k := range i.pieces {
		p := &i.pieces[k]
		if p.at > b.size-p.n {
			return // it is not there
		}
		part, err := b.read(p.at, min(p.n, maxMeta))
		if err != nil {
			part = nil // too much: it may say anything, and cannot be kept in part
			i.packed = true
		}
		data = append(data, part...)
		if p.n > maxMeta {
			i.packed = true
		}
	}
	var out []byte
	fill := byte(0)
	switch {
	case i.xmp:
		b.place = b.place || i.packed || xmpSaysPlace(data)
		fill = ' '
	case len(bytes.Trim(data, "\x00")) == 0 && !i.packed:
		return // it says nothing
	default:
		e := readExif(tiffOf(data))
		b.place = b.place || e.place || i.packed
		out = e.upright(len(data))
	}
	for _, p := range i.pieces {
		p.fill = fill
		n := min(int64(len(out)), p.n)
		p.data, out = out[:n], out[n:]
		b.patches = append(b.patches, p)
	}
}

// exifOffset is before the TIFF structure of an Exif item: how many bytes there are
// between the two.
const exifOffset = 4

// tiffOf returns the TIFF structure of an Exif item.
func tiffOf(data []byte) []byte {
	if len(data) < exifOffset {
		return nil
	}
	n := uint64(binary.BigEndian.Uint32(data))
	if n > uint64(len(data)-exifOffset) {
		return nil
	}
	return data[exifOffset+n:]
}

// upright is an Exif item of at most n bytes that says nothing but the orientation, nil
// if there is no room.
func (e exif) upright(n int) []byte {
	tiff := e.onlyOrientation()
	if tiff == nil {
		tiff = []byte("MM\x00*\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00") // no entry
	}
	out := append([]byte{0, 0, 0, 0}, tiff...)
	if len(out) > n {
		return nil
	}
	return out
}

// cursor reads numbers from bytes; bad once there are too few.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.b, c.bad = nil, true
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) skip(n uint64) { c.take(n) }

// uint reads a number of 0 to 8 bytes.
func (c *cursor) uint(n uint64) (v uint64) {
	if n > 8 {
		c.b, c.bad = nil, true
		return 0
	}
	for _, x := range c.take(n) {
		v = v<<8 | uint64(x)
	}
	return v
}

// patched copies a file with patches, which are in order; where they overlap, the first
// one counts.
func patched(w io.Writer, r io.ReaderAt, size int64, patches []patch) error {
	pos := int64(0)
	for _, p := range patches {
		end := min(p.at+p.n, size)
		if end <= pos {
			continue
		}
		if p.at > pos {
			if _, err := io.Copy(w, io.NewSectionReader(r, pos, p.at-pos)); err != nil {
				return err
			}
			pos = p.at
		}
		data := p.data[min(pos-p.at, int64(len(p.data))):]
		if _, err := io.CopyN(w, io.MultiReader(bytes.NewReader(data), filled(p.fill)), end-pos); err != nil {
			return err
		}
		pos = end
	}
	_, err := io.Copy(w, io.NewSectionReader(r, pos, size-pos))
	return err
}
