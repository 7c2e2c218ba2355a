"""The file backend takes over the files of Cinder's NFS driver."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from pytest_twisted import ensureDeferred

from bootvol.errors import BackendFailed, DiskNotAdoptable, DiskNotFound, VolumeInUse
from bootvol.model import StoredDisk
from bootvol.testing.backends import noise, read
from bootvol.threads import Threads
from bootvol_plugins.file import FileBackend
from bootvol_plugins.file_store import STORE
from tests.unit.test_file_backend import NAME, make

UNIT = 1024 * 1024
CONTENT = noise(UNIT)
PLACE = f"volume-{uuid4()}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the backend, with a file as Cinder's NFS driver makes it."""
    folder = tmp_path / "volumes"
    folder.mkdir(0o700)
    (folder / PLACE).write_bytes(CONTENT)
    (folder / PLACE).chmod(0o666)
    return folder


@pytest.fixture
def backend(folder: Path, threads: Threads) -> FileBackend:
    """The backend."""
    return make(folder, threads)


@ensureDeferred
async def test_a_file_is_renamed_and_nothing_else(folder: Path, backend: FileBackend) -> None:
    inode = (folder / PLACE).stat().st_ino
    await backend.identity()
    assert await backend.stored_disks() == [StoredDisk(PLACE, UNIT)]
    assert await backend.adopt(PLACE, NAME, UNIT) == UNIT
    taken = folder / f"{NAME}.raw"
    assert {each.name for each in folder.iterdir()} == {STORE, taken.name}
    # Others could write to Cinder's file.
    assert (taken.stat().st_ino, taken.stat().st_mode & 0o777) == (inode, 0o600)
    assert await read(backend, NAME, 0, UNIT) == CONTENT
    assert await backend.stored_disks() == [StoredDisk(taken.name, UNIT, NAME)]
    # The name may be in use again by the time of a repeated call.
    (folder / PLACE).write_bytes(b"other")
    assert await backend.adopt(PLACE, NAME, UNIT) == UNIT
    assert (folder / PLACE).read_bytes() == b"other"


@ensureDeferred
async def test_an_odd_file_becomes_larger_and_stays_sparse(
    folder: Path, backend: FileBackend
) -> None:
    (folder / "odd").write_bytes(b"odd")
    assert await backend.adopt("odd", NAME, 1024 * UNIT) == 1024 * UNIT
    assert await read(backend, NAME, 0, UNIT) == b"odd".ljust(UNIT, b"\0")
    assert (folder / f"{NAME}.raw").stat().st_blocks * 512 < UNIT


def _qcow2(folder: Path) -> None:
    (folder / PLACE).write_bytes(b"QFI\xfb" + CONTENT)


def _overlay(folder: Path) -> None:
    listed = {"active": f"{PLACE}.1234", "1234": f"{PLACE}.1234"}
    (folder / f"{PLACE}.info").write_text(json.dumps(listed))


def _broken_list(folder: Path) -> None:
    (folder / f"{PLACE}.info").write_text("{")


def _empty(folder: Path) -> None:
    (folder / PLACE).write_bytes(b"")


def _linked(folder: Path) -> None:
    os.link(folder / PLACE, folder.parent / "other")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_qcow2, "qcow2"),
        (_overlay, "has snapshots"),
        (_broken_list, "has snapshots"),
        (_empty, "empty"),
        (_linked, "several names"),
    ],
)
@ensureDeferred
async def test_what_is_no_whole_disk_stays(
    folder: Path, backend: FileBackend, spoil: Callable[[Path], None], why: str
) -> None:
    spoil(folder)
    (found,) = await backend.stored_disks()
    assert why in (found.obstacle or "")
    with pytest.raises(DiskNotAdoptable, match=why):
        await backend.adopt(PLACE, NAME, UNIT)
    assert (folder / PLACE).exists()


@ensureDeferred
async def test_a_list_without_snapshots_is_no_obstacle(folder: Path, backend: FileBackend) -> None:
    """Cinder leaves the list after the deletion of the last snapshot."""
    (folder / f"{PLACE}.info").write_text(json.dumps({"active": PLACE}))
    assert await backend.adopt(PLACE, NAME, UNIT) == UNIT


@ensureDeferred
async def test_no_link_leads_out_of_the_folder(folder: Path, backend: FileBackend) -> None:
    """A link to a file elsewhere is no disk.

    Break: `plugins/bootvol_plugins/file_adoption.py`:
    `_READ: Final = os.O_RDONLY | os.O_NOFOLLOW` -> `_READ: Final = os.O_RDONLY`.
    """
    secret = folder.parent / "secret"
    secret.write_bytes(CONTENT)
    (folder / "link").symlink_to(secret)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    assert {each.place for each in await backend.stored_disks()} == {PLACE}
    for place in ("link", "folder", "pipe", STORE):
        with pytest.raises((DiskNotAdoptable, DiskNotFound)):
            await backend.adopt(place, NAME, UNIT)
    assert (folder / "link").is_symlink()
    assert secret.read_bytes() == CONTENT


@ensureDeferred
async def test_a_file_that_a_program_writes_stays(folder: Path, backend: FileBackend) -> None:
    with (folder / PLACE).open("r+b"):
        (found,) = await backend.stored_disks()
        assert found.obstacle == "another program has the file open"
        with pytest.raises(VolumeInUse):
            await backend.adopt(PLACE, NAME, UNIT)
    assert await backend.adopt(PLACE, NAME, UNIT) == UNIT
    with (folder / f"{NAME}.raw").open("r+b"), pytest.raises(VolumeInUse):
        await backend.give_up(NAME, PLACE)


@ensureDeferred
async def test_a_file_replaced_at_the_last_moment_stays(
    folder: Path, backend: FileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the file that was checked becomes a volume.

    Break: `plugins/bootvol_plugins/file_adoption.py`:
    `if taken is None or not os.path.samestat(taken, os.fstat(descriptor)):` -> `if False:`
    """
    rename, secret = os.rename, folder.parent / "secret"
    secret.write_bytes(CONTENT)

    def replaced(old: str, new: str, **more: int) -> None:
        monkeypatch.setattr(os, "rename", rename)
        (folder / PLACE).unlink()
        (folder / PLACE).symlink_to(secret)
        rename(old, new, **more)

    monkeypatch.setattr(os, "rename", replaced)
    with pytest.raises(BackendFailed, match="replaced"):
        await backend.adopt(PLACE, NAME, UNIT)
    assert (folder / PLACE).is_symlink()
    assert not (folder / f"{NAME}.raw").exists()


@ensureDeferred
async def test_a_crash_between_two_names_is_no_loss(folder: Path, backend: FileBackend) -> None:
    await backend.adopt(PLACE, NAME, UNIT)
    os.link(folder / f"{NAME}.raw", folder / PLACE)
    for _ in range(2):
        await backend.give_up(NAME, PLACE)
        assert [each.name for each in folder.iterdir()] == [PLACE]
    assert (folder / PLACE).read_bytes() == CONTENT


@ensureDeferred
async def test_a_file_system_without_links(
    folder: Path, backend: FileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    await backend.adopt(PLACE, NAME, UNIT)
    (folder / "taken").write_bytes(b"other")
    with pytest.raises(BackendFailed, match="has the name taken"):
        await backend.give_up(NAME, "taken")
    rename = os.rename

    def reserved(old: str, new: str, **more: int) -> None:
        # Another program cannot make a file of this name any more without notice.
        assert (folder / new).read_bytes() == b""
        if failures:
            raise failures.pop()
        rename(old, new, **more)

    failures = [OSError(errno.EIO, "broken")]
    monkeypatch.setattr(os, "rename", reserved)
    with pytest.raises(BackendFailed):
        await backend.give_up(NAME, PLACE)
    assert not (folder / PLACE).exists()
    await backend.give_up(NAME, PLACE)
    assert (folder / "taken").read_bytes() == b"other"
    assert (folder / PLACE).read_bytes() == CONTENT
