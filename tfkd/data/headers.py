"""What the header of an image file says, without decoding the file.

The kind is read from the content, never from the name: JPEG (ITU-T T.81), PNG (W3C, third edition,
with its ``eXIf`` chunk), WebP (RFC 9649), BMP, and GIF89a. The orientation is tag 274 of EXIF 2.3:
how the stored image has to be turned or mirrored so that it stands upright.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from typing import BinaryIO

JPEG, PNG, WEBP, BMP, GIF = range(1, 6)
"""The kinds of image files."""

WANTED = "a whole JPEG, PNG, WebP, BMP or GIF image"

GRAY, ALPHA, PALETTE, DEEP, CMYK, ANIMATED = (1 << bit for bit in range(6))
"""What is remarkable in a file: one channel of brightness, transparency, a table of colors (GIFs
always have one), 16 bits a channel, four inks, several frames."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 274
_WHOLE_NUMBERS = {3: "H", 4: "I", 8: "h", 9: "i"}  # EXIF wants the first; others are written.
_HEIF = (b"he", b"mi", b"ms", b"av")  # How the brands of its files begin.
_OTHERS = {
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"\0\0\0\x0c": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"\0\0\1\0": "an icon",
    b"%PDF": "a PDF document",
    b"PK\3\4": "a ZIP archive",
    b"8BPS": "a Photoshop image",
    b"<svg": "an SVG drawing",
}


class Unreadable(ValueError):
    """A file that is no image of a known kind; the message says in a few words what it is."""


@dataclasses.dataclass(frozen=True)
class Header:
    """Facts of one file.

    Attributes:
        kind: ``JPEG``, ``PNG``, ``WEBP``, ``BMP`` or ``GIF``.
        height: Rows of the upright image.
        width: Columns of the upright image.
        orientation: 1 (upright as stored) to 8, as EXIF numbers them.
        traits: The sum of what is remarkable: ``GRAY``, ``ALPHA``, ...
    """

    kind: int
    height: int
    width: int
    orientation: int = 1
    traits: int = 0


def read(path: str) -> Header:
    """Returns the header of a file.

    Raises:
        Unreadable: It is no image of a known kind, or it cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            return parse(file)
    except OSError as error:
        raise Unreadable(f"a file that cannot be read ({error.strerror})") from None


def parse(file: BinaryIO) -> Header:
    """Returns the header of an opened file; see ``read``."""
    start = file.read(32)
    file.seek(0)
    if start[:3] == b"\xff\xd8\xff":
        return _jpeg(file)
    if start[:8] == _PNG_START:
        return _png(file)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _webp(file)
    if start[:2] == b"BM":
        return _bmp(file)
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return _gif(file)
    if start[4:8] == b"ftyp":
        raise Unreadable("a HEIC or AVIF image" if start[8:10] in _HEIF else "a video")
    if not start:
        raise Unreadable("an empty file")
    raise Unreadable(_OTHERS.get(start[:4], "something else"))


def _take(file: BinaryIO, count: int) -> bytes:
    found = file.read(count)
    if len(found) < count:
        raise Unreadable("an image file that ends within its header")
    return found


def _header(kind: int, height: int, width: int, orientation: int = 1, traits: int = 0) -> Header:
    if not (height and width):
        raise Unreadable("an image without a size")
    if orientation > 4:  # These lie on their side.
        height, width = width, height
    return Header(kind, height, width, orientation, traits)


def _jpeg(file: BinaryIO) -> Header:
    file.seek(2)
    orientation = 1
    while True:
        # Between segments libjpeg skips whatever is no marker, and so does this.
        while _take(file, 1) != b"\xff":
            pass
        marker = 0xFF
        while marker == 0xFF:
            marker = _take(file, 1)[0]
        if marker <= 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        if marker in (0xD9, 0xDA):
            raise Unreadable("a JPEG without a size")
        size = struct.unpack(">H", _take(file, 2))[0] - 2
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, components = struct.unpack(">BHHB", _take(file, 6))
            if bits != 8:
                raise Unreadable(f"a JPEG of {bits} bits a channel")
            traits = {1: GRAY, 4: CMYK}.get(components, 0)
            return _header(JPEG, height, width, orientation, traits)
        if marker == 0xE1 and size > 6 and orientation == 1:
            segment = file.read(size)
            if segment.startswith(b"Exif\0\0"):
                orientation = _orientation(segment[6:])
        else:
            file.seek(max(size, 0), os.SEEK_CUR)


def _png(file: BinaryIO) -> Header:
    file.seek(16)
    width, height, bits, color = struct.unpack(">IIBB", _take(file, 10))
    traits = GRAY * (color in (0, 4)) | ALPHA * (color in (4, 6)) | PALETTE * (color == 3)
    traits |= DEEP * (bits == 16)
    orientation = 1
    file.seek(33)
    # What is cut behind the header is the decoder's business.
    while len(start := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", start)
        if kind == b"eXIf":
            orientation = _orientation(file.read(size))
            file.seek(4, os.SEEK_CUR)
            continue
        if kind == b"tRNS":
            traits |= ALPHA
        elif kind == b"acTL":
            traits |= ANIMATED
        elif kind == b"IEND":
            break
        file.seek(size + 4, os.SEEK_CUR)
    return _header(PNG, height, width, orientation, traits)


def _webp(file: BinaryIO) -> Header:
    file.seek(12)
    kind, _ = struct.unpack("<4sI", _take(file, 8))
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", _take(file, 10)[6:])
        return _header(WEBP, height & 0x3FFF, width & 0x3FFF)
    if kind == b"VP8L":
        bits = struct.unpack("<I", _take(file, 5)[1:])[0]
        height, width = (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
        return _header(WEBP, height, width, traits=ALPHA * (bits >> 28 & 1))
    if kind != b"VP8X":
        raise Unreadable("a WebP file without an image")
    facts = _take(file, 10)
    width, height = (int.from_bytes(facts[at : at + 3], "little") + 1 for at in (4, 7))
    if facts[0] & 0x02:
        raise Unreadable("an animated WebP image, which TensorFlow cannot decode")
    traits = ALPHA * (facts[0] >> 4 & 1)
    orientation = 1
    while facts[0] & 0x08 and len(start := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", start)
        if kind == b"EXIF":
            orientation = _orientation(file.read(size).removeprefix(b"Exif\0\0"))
            break
        file.seek(size + size % 2, os.SEEK_CUR)
    return _header(WEBP, height, width, orientation, traits)


def _bmp(file: BinaryIO) -> Header:
    file.seek(14)
    size, width, height, _, bits, packing = struct.unpack("<IiiHHI", _take(file, 20))
    plain = packing == 0
    if packing == 3 and bits == 32:
        file.seek(54)
        plain = _take(file, 12) == struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    if size < 40 or bits not in (8, 24, 32) or not plain:
        raise Unreadable("a BMP of a rare form (wanted one of 8, 24 or 32 bits, not packed)")
    return _header(BMP, abs(height), max(width, 0), traits=PALETTE * (bits == 8))


def _gif(file: BinaryIO) -> Header:
    file.seek(6)
    width, height, flags = struct.unpack("<HHB", _take(file, 5))
    traits, frames = 0, 0
    file.seek(13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0))
    while frames < 2 and (kind := file.read(1)) in (b"!", b","):
        if kind == b"!":
            if file.read(1) == b"\xf9" and not frames:
                control = _take(file, 2)
                traits |= ALPHA * (control[1] & 1)
                file.seek(-2, os.SEEK_CUR)
        else:
            frames += 1
            flags = _take(file, 9)[8]
            file.seek((3 << (flags & 7) + 1 if flags & 0x80 else 0) + 1, os.SEEK_CUR)
        while size := file.read(1)[:1]:
            if size == b"\0":
                break
            file.seek(size[0], os.SEEK_CUR)
    return _header(GIF, height, width, traits=traits | ANIMATED * (frames > 1))


def _orientation(exif: bytes) -> int:
    """Returns the orientation in an EXIF block; 1 where it has none or is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        start = struct.unpack_from(f"{order}I", exif, 4)[0]
        for number in range(struct.unpack_from(f"{order}H", exif, start)[0]):
            tag, kind = struct.unpack_from(f"{order}HH", exif, start + 2 + 12 * number)
            if tag == _ORIENTATION and kind in _WHOLE_NUMBERS:
                form = order + _WHOLE_NUMBERS[kind]
                value = struct.unpack_from(form, exif, start + 10 + 12 * number)[0]
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
