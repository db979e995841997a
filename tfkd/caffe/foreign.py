"""Files that are something else than they are taken for, by how they begin."""

from __future__ import annotations

from pathlib import Path

from tfkd.caffe.errors import CaffeFormatError

_HEAD = 512
_BEGINNINGS = {
    b"\x89HDF": "an HDF5 file, which Caffe also writes",
    b"version https://git-lfs": "a pointer of git-lfs, which stands for the file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
}
_WEB_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")
_OF_TEXT = frozenset(b"\t\n\r\f" + bytes(range(0x20, 0x7F)))


def check_binary(path: Path, wanted: str) -> None:
    """Refuses a file that is no message in binary form.

    Args:
        path: An existing file.
        wanted: What it should be, for the message.

    Raises:
        CaffeFormatError: For an empty one and those of other formats, texts among them.
    """
    head = _head(path, wanted)
    _check_known(head, wanted)
    if _OF_TEXT.issuperset(head):
        raise CaffeFormatError(f"found a text, such as a prototxt, wanted {wanted}")


def check_text(path: Path, wanted: str) -> None:
    """Refuses a file that is no text; arguments and errors as :func:`check_binary`."""
    head = _head(path, wanted)
    _check_known(head, wanted)
    if b"\0" in head:
        raise CaffeFormatError(f"found a file in binary form, such as weights, wanted {wanted}")


def _head(path: Path, wanted: str) -> bytes:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise CaffeFormatError(f"found an empty file, wanted {wanted}")
    return head


def _check_known(head: bytes, wanted: str) -> None:
    for beginning, what in _BEGINNINGS.items():
        if head.startswith(beginning):
            raise CaffeFormatError(f"found {what}, wanted {wanted}")
    if head.lstrip().lower().startswith(_WEB_PAGES):
        raise CaffeFormatError(f"found a web page, wanted {wanted}")
