"""Archives that unpack to far more than they are give one line, and are not unpacked."""

import tracemalloc
import zipfile

import pytest

from tfkd import TfkdError, archives


@pytest.fixture
def bomb(tmp_path):
    """An archive of 200 kB with a member of 200 MB."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("member", "w") as member:
            for _ in range(200):
                member.write(bytes(10**6))
    assert path.stat().st_size < 300_000
    return path


def test_a_member_is_looked_at_before_it_is_read(bomb):
    tracemalloc.start()
    with zipfile.ZipFile(bomb) as archive:
        with pytest.raises(TfkdError, match=r"found 200,000,000 bytes in its member 'member'"):
            archives.read(archive, "member", 10**6)
        with pytest.raises(TfkdError, match=r"unpacks to 200,000,000, wanted the weights"):
            archives.check_sizes(archive, bomb.stat().st_size)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_archives_of_numbers_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "good.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", b"1234")
    with zipfile.ZipFile(tmp_path / "good.zip") as archive:
        archives.check_sizes(archive, 100)
        assert archives.read(archive, "member", 4) == b"1234"
