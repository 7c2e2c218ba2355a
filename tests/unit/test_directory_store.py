"""The directory source that takes images from callers: its files, crashes and faults."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import capturedLogs, formatEvent

from bootvol.errors import ImageConflict, ImageNotFound, QuotaExceeded, SourceFailed
from bootvol.interfaces import IImageStore, PluginContext
from bootvol.model import GIB, ImageRecord, ImageStatus
from bootvol.testing.image_records import CONTENT, OWNER, facts, new_record, send, stored
from bootvol.testing.sources import read_all
from bootvol.threads import Threads
from bootvol_plugins.directory import PLUGIN, DirectoryOptions
from bootvol_plugins.directory_records import FOLDER, LEAST
from bootvol_plugins.directory_store import WritableDirectory
from tests.daemons import reactor

#: Takes the lock of a file, tells so, and then waits to be killed.
LOCKER = """
import fcntl, sys
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def opened(folder: Path, threads: Threads, quota: int | None = None) -> WritableDirectory:
    """Return the source of a folder, as a daemon makes the source at its start."""
    return WritableDirectory(PluginContext(reactor, threads, "images"), folder, quota)


def names(folder: Path, image: ImageRecord) -> set[str]:
    """Return the endings of an image's files."""
    found = os.listdir(folder / FOLDER)
    return {each.removeprefix(image.id) for each in found if each.startswith(image.id)}


@ensureDeferred
async def test_files_are_for_the_daemon_alone(tmp_path: Path, threads: Threads) -> None:
    record = await stored(opened(tmp_path, threads))
    assert stat.S_IMODE((tmp_path / FOLDER).stat().st_mode) == 0o700
    for path in (tmp_path / FOLDER).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert names(tmp_path, record) == {".json", ".disk"}
    assert (tmp_path / FOLDER / f"{record.id}.disk").read_bytes() == CONTENT


@ensureDeferred
async def test_a_file_of_the_operator_comes_first(tmp_path: Path, threads: Threads) -> None:
    source = opened(tmp_path, threads)
    record = await stored(source)
    (tmp_path / record.id).write_bytes(b"of the operator")
    image = await source.find(OWNER, record.id)
    assert image.size_bytes == len(b"of the operator")
    assert await source.images(OWNER) == [image]
    assert await read_all(await source.open(image), 4096) == b"of the operator"


@ensureDeferred
async def test_everything_is_there_after_a_restart(tmp_path: Path, threads: Threads) -> None:
    record = await stored(opened(tmp_path, threads))
    source = opened(tmp_path, threads)
    assert await source.records() == [record]
    image = await source.find(OWNER, record.id)
    assert await read_all(await source.open(image), 65536) == CONTENT


@ensureDeferred
async def test_a_start_frees_the_space_of_broken_uploads(tmp_path: Path, threads: Threads) -> None:
    """A daemon may die during an upload, or between the rename and the record, or in a removal."""
    source = opened(tmp_path, threads)
    during, behind = new_record(), new_record()
    whole, removed = await stored(source), await stored(source)
    folder = tmp_path / FOLDER
    for record in (during, behind):
        await source.add(record)
    (folder / f"{during.id}.part").write_bytes(CONTENT)
    (folder / f"{behind.id}.disk").write_bytes(CONTENT)
    (folder / f"{removed.id}.json").unlink()
    assert (await source.record(during.id)).status is ImageStatus.SAVING
    source = opened(tmp_path, threads)
    upload = await source.upload(during.id, None)
    assert names(tmp_path, behind) == {".json"}
    assert names(tmp_path, removed) == set()
    assert names(tmp_path, whole) == {".json", ".disk"}
    assert (await source.record(behind.id)).status is ImageStatus.QUEUED
    await send(upload, CONTENT[:5000])
    await upload.finish(facts(CONTENT[:5000]))
    image = await source.find(OWNER, during.id)
    assert await read_all(await source.open(image), 65536) == CONTENT[:5000]


@ensureDeferred
async def test_the_upload_of_another_daemon_is_left_alone(tmp_path: Path, threads: Threads) -> None:
    source = opened(tmp_path, threads)
    theirs, ours = new_record(), new_record()
    for record in (theirs, ours):
        await source.add(record)
    part = tmp_path / FOLDER / f"{theirs.id}.part"
    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(part)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        source = opened(tmp_path, threads)
        # An upload waits for the end of the sweep.
        await (await source.upload(ours.id, None)).abort()
        assert names(tmp_path, theirs) == {".json", ".part"}
        with pytest.raises(ImageConflict):
            await source.upload(theirs.id, None)
        other.kill()
    await (await source.upload(theirs.id, None)).abort()
    assert names(tmp_path, theirs) == {".json"}


@ensureDeferred
async def test_a_damaged_record_hides_its_image_alone(tmp_path: Path, threads: Threads) -> None:
    """The bytes stay, too: the operator may repair the record."""
    source = opened(tmp_path, threads)
    good, bad = await stored(source), await stored(source)
    path = tmp_path / FOLDER / f"{bad.id}.json"
    content = path.read_bytes()
    for damaged in (b"", b"[]", b"{", json.dumps({**json.loads(content), "tags": 1}).encode()):
        path.write_bytes(damaged)
        with capturedLogs() as events:
            source = opened(tmp_path, threads)
            assert await source.records() == [good]
        assert any("is damaged" in (formatEvent(each) or "") for each in events)
        with pytest.raises(ImageNotFound):
            await source.find(OWNER, bad.id)
        with pytest.raises(ImageConflict):
            await source.upload(good.id, None)
        assert names(tmp_path, bad) == {".json", ".disk"}
    path.write_bytes(content)
    assert (await source.record(bad.id)) == bad


@ensureDeferred
async def test_a_missing_folder_is_not_made(tmp_path: Path, threads: Threads) -> None:
    """A disk may not be mounted."""
    source = opened(tmp_path / "missing", threads)
    assert await source.records() == []
    with pytest.raises(SourceFailed, match="No such file or directory"):
        await source.add(new_record())
    assert not (tmp_path / "missing").exists()


@ensureDeferred
async def test_a_full_disk(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(tmp_path, threads)
    record = new_record()
    await source.add(record)
    upload = await source.upload(record.id, None)

    write = os.write

    def full(descriptor: int, data: memoryview) -> int:
        # The reactor wakes up by a write to a pipe.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return write(descriptor, data)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bootvol_plugins.directory_store.os.write", full)
        with pytest.raises(SourceFailed, match="Source images has no space for the image"):
            await send(upload, CONTENT)
    await upload.abort()
    assert names(tmp_path, record) == {".json"}


@ensureDeferred
async def test_a_finish_that_fails_leaves_no_bytes(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(tmp_path, threads)
    record = new_record()
    await source.add(record)
    upload = await source.upload(record.id, None)
    await send(upload, CONTENT)

    def fails(*args: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("bootvol_plugins.directory_records.files.replace", fails)
        with pytest.raises(SourceFailed, match="Input/output error"):
            await upload.finish(facts(CONTENT))
    await upload.abort()
    assert names(tmp_path, record) == {".json"}
    assert (await source.record(record.id)).status is ImageStatus.QUEUED


@ensureDeferred
async def test_records_without_bytes_count_too(tmp_path: Path, threads: Threads) -> None:
    source = opened(tmp_path, threads, 3 * LEAST)
    records = [new_record() for _ in range(4)]
    for record in records[:3]:
        await source.add(record)
    with pytest.raises(QuotaExceeded, match=r"may have 0\.00292969 GiB together"):
        await source.add(records[3])
    await source.remove(records[0].id)
    await source.add(records[3])


@ensureDeferred
async def test_the_number_of_records_is_bounded(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant cannot fill the daemon's memory with records.

    Break: `plugins/bootvol_plugins/directory_records.py`: `>= MOST_RECORDS:` -> `< 0:`.
    """
    monkeypatch.setattr("bootvol_plugins.directory_records.MOST_RECORDS", 2)
    source = opened(tmp_path, threads)
    records = [new_record() for _ in range(3)]
    for record in records[:2]:
        await source.add(record)
    with pytest.raises(QuotaExceeded, match="may have 2 images"):
        await source.add(records[2])
    await source.add(new_record("another tenant"))
    await source.remove(records[0].id)
    await source.add(records[2])


def test_options(tmp_path: Path, threads: Threads) -> None:
    context = PluginContext(reactor, threads, "images")
    plain = DirectoryOptions(directory=tmp_path)
    assert not IImageStore.providedBy(PLUGIN.factory(plain, context))
    writable = attrs.evolve(context)
    options = DirectoryOptions(directory=tmp_path, writable=True, quota_gib=0.5)
    source = PLUGIN.factory(options, writable)
    assert isinstance(source, WritableDirectory)
    source._records.check_room(GIB // 2)
    with pytest.raises(QuotaExceeded):
        source._records.check_room(GIB // 2 + 1)


def test_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PLUGIN.check is not None
    options = DirectoryOptions(directory=tmp_path, writable=True)
    assert list(PLUGIN.check(options)) == []
    monkeypatch.setattr(os, "access", lambda path, mode, **more: not mode & os.W_OK)
    (mistake,) = PLUGIN.check(options)
    assert (mistake.key, mistake.fault) == ("directory", "the folder cannot be written to")
