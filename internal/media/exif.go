package media

import (
	"bytes"
	"encoding/binary"
)

// The tags of TIFF that are looked at.
const (
	tagOrientation = 0x0112
	tagGPS         = 0x8825

	tiffHeader, tiffEntry = 8, 12
	// maxEntries bounds a directory: cameras write some thirty entries.
	maxEntries = 1000
)

const exifMagic = "Exif\x00\x00"

// exif is what is read of the metadata of a picture.
type exif struct {
	// orientation is 1 to 8, as TIFF has it; 0 if it is not said.
	orientation int
	// place: it says where the picture was taken, or it cannot be read and may.
	place bool
}

// readExif reads the first directory of a TIFF structure.
func readExif(b []byte) exif {
	unreadable := exif{place: true}
	if len(b) < tiffHeader {
		return unreadable
	}
	var order binary.ByteOrder
	switch string(b[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return unreadable
	}
	at := int64(order.Uint32(b[4:]))
	if at+2 > int64(len(b)) {
		return unreadable
	}
	n := int64(order.Uint16(b[at:]))
	at += 2
	if n > maxEntries || at+n*tiffEntry > int64(len(b)) {
		return unreadable
	}
	var e exif
	for ; n > 0; n, at = n-1, at+tiffEntry {
		switch order.Uint16(b[at:]) {
		case tagGPS:
			e.place = true
		case tagOrientation:
			if o := int(order.Uint16(b[at+8:])); o >= 1 && o <= 8 {
				e.orientation = o
			}
		}
	}
	return e
}

// onlyOrientation is a TIFF structure that says nothing else; nil if there is
// nothing to say.
func (e exif) onlyOrientation() []byte {
	if e.orientation < 2 {
		return nil
	}
	var b bytes.Buffer
	b.WriteString("MM\x00*")
	for _, v := range []any{
		uint32(tiffHeader), uint16(1), // one entry,
		uint16(tagOrientation), uint16(3), uint32(1), uint16(e.orientation), uint16(0), // of type short,
		uint32(0), // and no further directory
	} {
		_ = binary.Write(&b, binary.BigEndian, v) // a Buffer takes everything
	}
	return b.Bytes()
}

// xmpSaysPlace reports whether XMP metadata says where a picture was taken.
// exif:GPSLatitude and its like keep "GPS" in their names in every way of writing.
func xmpSaysPlace(b []byte) bool { return bytes.Contains(b, []byte("GPS")) }
