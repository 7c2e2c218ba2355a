"""The directory source and its files."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from bootvol.errors import ImageNotFound, SourceFailed
from bootvol.interfaces import IFileStream, IImageStream, ISparseStream
from bootvol.model import Image, content_of
from bootvol.testing.backends import noise
from bootvol.testing.sources import CALLER, read_all
from bootvol.threads import Threads
from bootvol_plugins import directory_index
from bootvol_plugins.directory_source import DirectorySource
from tests.daemons import pause
from tests.waiting import LIMIT

CONTENT = noise(256 * 1024)


def state_digest(folder: Path) -> None:
    """State the digest of the file ``disk`` in the index; the image keeps the id ``disk``."""
    digest = hashlib.sha512(CONTENT).hexdigest()
    entry = f'[[images]]\nid = "disk"\nfile = "disk"\nsha512 = "{digest}"\n'
    (folder / "index.toml").write_text(entry)


async def half_read(folder: Path, threads: Threads, *, by_digest: bool = False) -> IImageStream:
    """Return the stream of an image, after reading the first part.

    :param by_digest: whether the index states the digest of the image.
    """
    (folder / "disk").write_bytes(CONTENT)
    if by_digest:
        state_digest(folder)
    source = DirectorySource("images", folder, threads)
    stream = await source.open(await source.find(CALLER, "disk"))
    await stream.read_into(memoryview(bytearray(len(CONTENT) // 2)))
    return stream


@pytest.mark.parametrize("size", [65536, 1024 * 1024])
@pytest.mark.parametrize("content", [CONTENT[::-1], CONTENT + b"1", CONTENT[:-1], b""])
@ensureDeferred
async def test_an_image_that_is_written_to_while_it_is_read(
    tmp_path: Path, threads: Threads, content: bytes, size: int
) -> None:
    stream = await half_read(tmp_path, threads)
    (tmp_path / "disk").write_bytes(content)
    with pytest.raises(SourceFailed, match="changed while bootvol read it") as failed:
        await read_all(stream, size)
    assert failed.value.retryable


@ensureDeferred
async def test_an_image_that_is_replaced_is_read_to_its_end(
    tmp_path: Path, threads: Threads
) -> None:
    stream = await half_read(tmp_path, threads)
    (tmp_path / "new").write_bytes(CONTENT[::-1])
    (tmp_path / "new").rename(tmp_path / "disk")
    await IFileStream(stream).check()
    assert await read_all(stream, 65536) == CONTENT[len(CONTENT) // 2 :]


def overwrite(path: Path, content: bytes) -> None:
    """Write another content of the same size into the same file, and keep its time of change.

    ``cp --preserve`` does so.
    """
    before = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@ensureDeferred
async def test_another_content_of_equal_size_and_time_is_another_image(
    tmp_path: Path, threads: Threads
) -> None:
    stream = await half_read(tmp_path, threads)
    source = DirectorySource("images", tmp_path, threads)
    image = await source.find(CALLER, "disk")
    assert image.validator == stream.validator
    overwrite(tmp_path / "disk", CONTENT[::-1])
    with pytest.raises(SourceFailed, match="or its owner, rights or times, changed while bootvol"):
        await IFileStream(stream).check()
    again = await source.find(CALLER, "disk")
    assert content_of(again) != content_of(image)
    resumed = await source.open(again, 4096, image.validator)
    assert (resumed.offset, resumed.validator) == (0, again.validator)


@pytest.mark.parametrize("by_digest", [True, False])
@ensureDeferred
async def test_another_owner_counts_as_a_change_unless_a_digest_is_stated(
    tmp_path: Path, threads: Threads, by_digest: bool
) -> None:
    stream = await half_read(tmp_path, threads, by_digest=by_digest)
    source = DirectorySource("images", tmp_path, threads)
    image = await source.find(CALLER, "disk")
    assert image.validator == stream.validator
    (tmp_path / "disk").chmod(0o600)
    again = await source.find(CALLER, "disk")
    resumed = await source.open(again, 4096, image.validator)
    if by_digest:
        assert again.validator == image.validator
        assert resumed.offset == 4096
        assert await read_all(stream, 65536) == CONTENT[len(CONTENT) // 2 :]
    else:
        assert again.validator != image.validator
        assert resumed.offset == 0
        with pytest.raises(SourceFailed, match="owner, rights or times"):
            await read_all(stream, 65536)


@ensureDeferred
async def test_a_write_shows_beside_a_digest_too(tmp_path: Path, threads: Threads) -> None:
    """So the import is tried again, instead of the final failure by the digest."""
    stream = await half_read(tmp_path, threads, by_digest=True)
    (tmp_path / "disk").write_bytes(CONTENT[::-1])
    with pytest.raises(SourceFailed, match="changed while bootvol read it"):
        await IFileStream(stream).check()


@ensureDeferred
async def test_an_image_that_was_just_written_is_read_after_a_tick(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes within one tick of the system's clock leave the same times."""
    (tmp_path / "disk").write_bytes(CONTENT)
    written = (tmp_path / "disk").stat().st_ctime
    now, slept = 0.0, list[float]()
    monkeypatch.setattr("bootvol_plugins.directory_source.time.time", lambda: now)
    monkeypatch.setattr("bootvol_plugins.directory_source.time.sleep", slept.append)
    source = DirectorySource("images", tmp_path, threads)
    image = await source.find(CALLER, "disk")
    for each in (written - 1, written + 0.001, written + 1):
        now = each
        await (await source.open(image)).close()
    assert len(slept) == 1


@pytest.mark.parametrize("change", ["unlink", "hardlink"])
@ensureDeferred
async def test_an_image_whose_names_change_is_read_to_its_end(
    tmp_path: Path, threads: Threads, change: str
) -> None:
    stream = await half_read(tmp_path, threads)
    if change == "unlink":
        (tmp_path / "disk").unlink()
    else:
        (tmp_path / "other").hardlink_to(tmp_path / "disk")
    assert await read_all(stream, 65536) == CONTENT[len(CONTENT) // 2 :]


APART, COMPOSED = "Gru\u0308n.raw", "Gr\u00fcn.raw"


@pytest.mark.parametrize(("kept", "wanted"), [(APART, COMPOSED), (COMPOSED, APART)])
@ensureDeferred
async def test_an_image_is_found_by_either_form_of_its_name(
    tmp_path: Path, threads: Threads, kept: str, wanted: str
) -> None:
    (tmp_path / kept).write_bytes(CONTENT)
    source = DirectorySource("images", tmp_path, threads)
    assert (await source.find(CALLER, wanted)).id == kept
    (tmp_path / "index.toml").write_text(f'[[images]]\nid = "one"\nfile = "{wanted}"\n')
    image = await source.find(CALLER, "one")
    stream = await source.open(image)
    assert await read_all(stream, 65536) == CONTENT
    assert [each.id for each in await source.images(CALLER)] == ["one"]
    with pytest.raises(ImageNotFound):
        await source.find(CALLER, wanted)


@ensureDeferred
async def test_the_form_decides_where_there_are_both(tmp_path: Path, threads: Threads) -> None:
    marks = "\u1e69", "s\u0323\u0307", "\u1e63\u0307"
    for number, name in enumerate(marks[:2]):
        (tmp_path / name).write_bytes(bytes(number + 1))
    source = DirectorySource("images", tmp_path, threads)
    for number, name in enumerate(marks[:2]):
        found = await source.find(CALLER, name)
        assert (found.id, found.size_bytes) == (name, number + 1)
    with pytest.raises(ImageNotFound):
        await source.find(CALLER, marks[2])


@pytest.mark.parametrize("target", ["link", "x" * 300, "disk/x", "missing"])
@ensureDeferred
async def test_a_link_that_leads_nowhere_hides_no_other_image(
    tmp_path: Path, threads: Threads, target: str
) -> None:
    (tmp_path / "disk").write_bytes(CONTENT)
    (tmp_path / "link").symlink_to(target)
    source = DirectorySource("images", tmp_path, threads)
    assert [each.id for each in await source.images(CALLER)] == ["disk"]
    assert (await source.find(CALLER, "disk")).size_bytes == len(CONTENT)
    with pytest.raises(ImageNotFound):
        await source.find(CALLER, "link")


@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\u200d"])
@ensureDeferred
async def test_names_with_spaces_and_joiners_of_any_script(
    tmp_path: Path, threads: Threads, space: str
) -> None:
    name = f"a{space}b.img"
    (tmp_path / name).write_bytes(CONTENT)
    for hidden in (b"a\nb", b"a\x1bb", b"a\xffb"):
        (tmp_path / os.fsdecode(hidden)).write_bytes(CONTENT)
    source = DirectorySource("images", tmp_path, threads)
    assert [each.id for each in await source.images(CALLER)] == [name]
    assert (await source.find(CALLER, name)).id == name


@ensureDeferred
async def test_the_last_good_index_serves_for_an_hour(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("bootvol_plugins.directory_index.monotonic", lambda: now)
    source = DirectorySource("images", tmp_path, threads)
    (tmp_path / "disk").write_bytes(CONTENT)
    index = tmp_path / "index.toml"
    index.write_text('[[images]]\nid = "4"\nfile = "disk"\n')
    assert [each.id for each in await source.images(CALLER)] == ["4"]
    index.write_text('[[images]]\nid = "4"\nfile = 7\n')
    now = 3599
    with capturedLogs() as logs:
        assert [each.id for each in await source.images(CALLER)] == ["4"]
        assert (await source.find(CALLER, "4")).id == "4"
    assert [each["log_level"].name for each in logs] == ["error"]
    assert "images.0.file" in str(logs[0]["error"])
    now = 3601
    with pytest.raises(SourceFailed) as failed:
        await source.images(CALLER)
    # Tenants see no details of the fault.
    assert failed.value.message == "Source images: index.toml is not valid."
    index.write_text('[[images]]\nid = "5"\nfile = "disk"\n')
    assert [each.id for each in await source.images(CALLER)] == ["5"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (3000 * '[[images]]\nid = "a"\nfile = "/"\n', r"images\.0\.file: .*and 2997 more faults"),
        (f'[[images]]\nid = "a"\nfile = "b"\n{"k" * 99_999} = 1\n', r"images\.0\.kkk"),
        ('[[images]]\nid = "a"\nfile = "b"\n"\\n\\u001b[1m" = 1\n', r"images\.0\.\?\?\[1m: Extra"),
        ("a = " + 99_999 * "[", "nested too deep"),
        ("a" * 99_999, "after a key"),
        (2 * f"[{'k' * 99_999}]\n", "Cannot declare .'kkk"),
    ],
)
@ensureDeferred
async def test_the_log_says_the_faults_of_an_index_in_one_short_line(
    tmp_path: Path, threads: Threads, text: str, said: str
) -> None:
    source = DirectorySource("images", tmp_path, threads)
    (tmp_path / "index.toml").write_text(text)
    with capturedLogs() as logs, pytest.raises(SourceFailed):
        await source.images(CALLER)
    (line,) = map(formatEvent, logs)
    assert re.search(said, line)
    assert len(line) < 700
    assert line.isprintable()


def counted(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> list[Any]:
    """Return a list of the arguments of each call to a function."""
    function, calls = getattr(place, name), []

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        return function(*arguments)

    monkeypatch.setattr(place, name, call)
    return calls


@ensureDeferred
async def test_files_that_are_missing_cost_no_look_at_all_names_each(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}.raw" for number in range(100)]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "index.toml").write_text(
        "".join(f'[[images]]\nid = "{n}"\nfile = "gone-{n}"\n' for n in range(100))
    )
    composed = counted(monkeypatch, directory_index, "_composed")
    source = DirectorySource("images", tmp_path, threads)
    assert [each.id for each in await source.images(CALLER)] == sorted(names)
    # Each name counts once, as a file or in the index.
    assert len(composed) == 200


@ensureDeferred
async def test_an_index_that_has_not_changed_is_not_read_again(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").touch()
    index = tmp_path / "index.toml"
    now = 0.0
    monkeypatch.setattr("bootvol_plugins.directory_index.time.time", lambda: now)
    read = counted(monkeypatch, directory_index, "read_index")
    source = DirectorySource("images", tmp_path, threads)
    # While a change might not show in the file's times, the file is read each time.
    for number, settled in enumerate((False, False, True, True, True)):
        if number in (0, 3):
            index.write_text(f'[[images]]\nid = "{number}"\nfile = "disk"\n')
        now = index.stat().st_ctime + (3 if settled else 1)
        (image,) = await source.images(CALLER)
        assert image.id == str(number // 3 * 3)
        assert (await source.find(CALLER, image.id)).id == image.id
    assert len(read) == 2 + 2 + 1 + 1
    # An invalid index is not read again either: a large one takes long.
    index.write_text("no TOML")
    now = index.stat().st_ctime + 3
    for _ in range(3):
        assert (await source.find(CALLER, "3")).id == "3"
    assert len(read) == 2 + 2 + 1 + 1 + 1
    index.write_text('[[images]]\nid = "again"\nfile = "disk"\n')
    now = index.stat().st_ctime + 3
    assert (await source.find(CALLER, "again")).id == "again"
    index.unlink()
    assert [each.id for each in await source.images(CALLER)] == ["disk"]


@ensureDeferred
async def test_who_asks_during_a_listing_shares_the_next_one(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings: list[Event] = []
    scan = DirectorySource._images

    def slowly(source: DirectorySource) -> list[Image]:
        found = scan(source)
        listings.append(Event())
        assert listings[-1].wait(LIMIT)
        return found

    monkeypatch.setattr(DirectorySource, "_images", slowly)
    source = DirectorySource("images", tmp_path, threads)
    first = Deferred.fromCoroutine(source.images(CALLER))
    while not listings:
        await pause(0.01)
    (tmp_path / "disk").touch()
    others = [Deferred.fromCoroutine(source.images(CALLER)) for _ in range(5)]
    listings[0].set()
    assert await first == []
    others.pop().addErrback(lambda _: None).cancel()
    while len(listings) < 2:
        await pause(0.01)
    listings[1].set()
    for each in others:
        assert [image.id for image in await each] == ["disk"]
    assert len(listings) == 2


async def sparse(folder: Path, threads: Threads) -> IImageStream:
    """Return the stream of an image with one large hole, after reading the first part."""
    with (folder / "disk").open("wb") as file:
        file.write(CONTENT)
        file.seek(8 * len(CONTENT))
        file.write(CONTENT)
    source = DirectorySource("images", folder, threads)
    stream = await source.open(await source.find(CALLER, "disk"))
    await stream.read_into(memoryview(bytearray(len(CONTENT))))
    return stream


@pytest.mark.parametrize("size", [0, len(CONTENT), 2 * len(CONTENT), 9 * len(CONTENT) - 1])
@ensureDeferred
async def test_an_image_that_is_cut_in_a_hole(tmp_path: Path, threads: Threads, size: int) -> None:
    stream = await sparse(tmp_path, threads)
    end = 9 * len(CONTENT)
    told = await ISparseStream(stream).extents(len(CONTENT), end - len(CONTENT))
    assert told[0].zero
    os.truncate(tmp_path / "disk", size)
    # The old map is still in use; the new map has no zeros behind the end.
    again = await ISparseStream(stream).extents(max(size, len(CONTENT)), 1)
    assert not again[0].zero
    ISparseStream(stream).skip(told[0].length)
    with pytest.raises(SourceFailed, match="changed while bootvol read it"):
        await read_all(stream, 65536)


@ensureDeferred
async def test_a_hole_that_is_filled_while_it_is_passed_over(
    tmp_path: Path, threads: Threads
) -> None:
    stream = await sparse(tmp_path, threads)
    (hole, *_) = await ISparseStream(stream).extents(len(CONTENT), 8 * len(CONTENT))
    assert hole.zero
    with (tmp_path / "disk").open("r+b") as file:
        file.seek(4 * len(CONTENT))
        file.write(CONTENT)
    ISparseStream(stream).skip(hole.length)
    with pytest.raises(SourceFailed, match="changed while bootvol read it"):
        await read_all(stream, 65536)
