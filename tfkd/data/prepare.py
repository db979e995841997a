"""Preparation of a data set from a local official archive, without network."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tfkd.data import presets, tiny_imagenet
from tfkd.data.data_dir import workplace
from tfkd.data.tfds_source import builder_for
from tfkd.errors import TfkdError, reason

_CHUNK = 2**20


def prepare(name: str, archives: Sequence[str], directory: str | None = None) -> Path:
    """Prepares a data set from archives on this machine, entirely or not at all.

    Args:
        name: ``tiny_imagenet``, or a set of tensorflow-datasets, such as ``cifar10``.
        archives: The official files, all that the set would download, under any name; those of
            imagenet2012, which have no known checksums, under their own.
        directory: Folder of the prepared sets; None for tensorflow-datasets' own.

    Returns:
        The folder of the prepared set; a set that is there already is left as it is.

    Raises:
        TfkdError: The set is unknown, or a file is missing, unknown or damaged.
    """
    if name == tiny_imagenet.NAME:
        if len(archives) != 1:
            raise TfkdError(
                f"{name}: found {len(archives)} archives, wanted one, "
                f"{presets.preset(name).archives[0]}"
            )
        return tiny_imagenet.prepare(archives[0], directory)
    builder = builder_for(name, directory)
    if _is_prepared(builder):
        return Path(builder.data_dir)
    known = presets.preset(name)
    if known.manual:
        _prepare(builder, name, _by_name(name, archives, known.archives))
        return Path(builder.data_dir)
    expected = {
        facts.filename: facts for facts in (builder.url_infos or {}).values() if facts.filename
    }
    if not expected:
        raise TfkdError(
            f"{name}: tensorflow-datasets records no files of it, and none can be checked; "
            f"wanted a set such as cifar10 or cifar100"
        )
    found = {}
    for archive in archives:
        filename = _recognized(name, Path(archive), expected)
        found[filename] = Path(archive).resolve()
    missing = sorted(set(expected) - set(found))
    if missing:
        raise TfkdError(
            f"{name}: found {len(found)} of {len(expected)} files, wanted also "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}"
        )
    _prepare(builder, name, found)
    return Path(builder.data_dir)


def _is_prepared(builder) -> bool:
    """Whether the set is there; the builder's own answer comes with a log line if not."""
    return (Path(builder.data_dir) / "dataset_info.json").is_file()


def _by_name(name: str, archives: Sequence[str], expected: tuple[str, ...]) -> dict[str, Path]:
    """Returns the files by name; raises TfkdError unless all are tar files of official names."""
    found = {}
    for archive in map(Path, archives):
        if archive.name not in expected:
            raise TfkdError(f"{archive}: is no file of {name}; wanted {' and '.join(expected)}")
        if not archive.is_file():
            raise TfkdError(f"{archive}: no such file; wanted {' and '.join(expected)} of {name}")
        if not tarfile.is_tarfile(archive):
            raise TfkdError(f"{archive}: is no tar archive, wanted the official one of {name}")
        found[archive.name] = archive.resolve()
    missing = [each for each in expected if each not in found]
    if missing:
        raise TfkdError(f"{name}: found {', '.join(found)}, wanted also {', '.join(missing)}")
    return found


def _recognized(name: str, archive: Path, expected: dict) -> str:
    """Returns the official name of a file, after checking its size and checksum."""
    if not archive.is_file():
        raise TfkdError(
            f"{archive}: no such file; wanted {' or '.join(sorted(expected))} of {name}"
        )
    size = archive.stat().st_size
    candidates = [each for each in expected.values() if each.filename == archive.name]
    if not candidates and len(expected) == 1:
        candidates = list(expected.values())
    if not candidates:
        candidates = [each for each in expected.values() if int(each.size) == size]
    if not candidates:
        raise TfkdError(
            f"{archive}: is no file of {name}; wanted {', '.join(sorted(expected)[:5])}"
        )
    if int(candidates[0].size) != size:
        raise TfkdError(
            f"{archive}: found {size} bytes, wanted {int(candidates[0].size)}, the size of the "
            f"official {candidates[0].filename}"
        )
    digest = _sha256(archive)
    for each in candidates:
        if each.checksum == digest:
            return each.filename
    raise TfkdError(
        f"{archive}: found sha256 {digest}, wanted {candidates[0].checksum}, that of the official "
        f"{candidates[0].filename}"
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _prepare(builder, name: str, found: dict[str, Path]) -> None:
    import tensorflow_datasets as tfds

    target = Path(builder.data_dir)
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()  # Left over: tensorflow-datasets would take it for a prepared set.
    root = Path(builder.data_dir_root)
    try:
        with workplace(root, name.replace("/", "_")) as work:
            local = work / "manual"
            local.mkdir()
            for filename, archive in found.items():
                (local / filename).symlink_to(archive)
            builder.download_and_prepare(
                download_dir=os.path.join(work, "downloads"),
                download_config=tfds.download.DownloadConfig(
                    manual_dir=local,
                    extract_dir=os.path.join(work, "extracted"),
                    try_download_gcs=False,
                ),
            )
    # Extraction fails in many ways, and the user needs the reason.
    except Exception as error:
        raise TfkdError(f"{name}: cannot be prepared in {root}: {reason(error)}") from error
    if not _is_prepared(builder):
        raise TfkdError(
            f"{name}: {target} holds something that is not a prepared set; remove it and try again"
        )
