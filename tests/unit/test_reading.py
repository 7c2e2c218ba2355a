"""Files named by an operator, and wrong things in their place."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from bootvol import reading


def pipe(folder: Path) -> Path:
    """Make a pipe without a writer."""
    path = folder / "pipe"
    os.mkfifo(path)
    return path


def link_to_itself(folder: Path) -> Path:
    path = folder / "link"
    path.symlink_to("link")
    return path


def image_of_a_disk(folder: Path) -> Path:
    path = folder / "disk"
    path.touch()
    os.truncate(path, reading.LARGEST + 1)
    return path


@pytest.mark.parametrize("read", [reading.content, reading.check])
@pytest.mark.parametrize(
    "make",
    [
        pipe,
        link_to_itself,
        image_of_a_disk,
        lambda folder: folder,
        lambda folder: folder / "missing",
        lambda _: Path("/dev/zero"),
        lambda _: Path("/dev/null"),
    ],
)
def test_what_is_no_file_of_the_operator_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[Path], object],
    make: Callable[[Path], Path],
) -> None:
    monkeypatch.setattr(reading, "_PATIENCE", 0.1)
    path = make(tmp_path)
    with pytest.raises(OSError, match=str(path)) as refused:
        read(path)
    assert refused.value.strerror


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(300_000))
    reading.check(path)
    assert reading.content(path) == path.read_bytes()


def test_what_comes_out_of_a_pipe(tmp_path: Path) -> None:
    path = pipe(tmp_path)
    content = os.urandom(300_000)
    writing = threading.Thread(target=path.write_bytes, args=(content,))
    writing.start()
    assert reading.content(path) == content
    writing.join()


def test_a_pipe_without_an_end(tmp_path: Path) -> None:
    def write() -> None:
        with path.open("wb", buffering=0) as opened, suppress(BrokenPipeError):
            while True:
                opened.write(bytes(1 << 20))

    path = pipe(tmp_path)
    writing = threading.Thread(target=write)
    writing.start()
    with pytest.raises(OSError, match="has more than"):
        reading.content(path)
    writing.join()
