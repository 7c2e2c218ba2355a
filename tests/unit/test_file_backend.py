"""The file backend and its directory."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import capturedLogs, formatEvent

from bootvol.errors import (
    BackendFailed,
    ConfigurationError,
    FileTooLarge,
    NoSpace,
    StoreUnusable,
    WrongStore,
)
from bootvol.interfaces import PluginContext
from bootvol.model import GIB
from bootvol.reactors import installed
from bootvol.threads import Threads
from bootvol_plugins.file import PLUGIN, FileBackend
from bootvol_plugins.file_options import FileOptions
from bootvol_plugins.file_store import STORE

NAME = "volume-00000000-0000-4000-8000-000000000001"


def make(directory: Path, threads: Threads, *, mounted: bool = False) -> FileBackend:
    """Make a backend as the daemon does."""
    made = PLUGIN.factory(
        FileOptions(directory=directory, mounted=mounted),
        PluginContext(installed(), threads, "disks"),
    )
    assert isinstance(made, FileBackend)
    return made


def test_its_directory_is_made_with_it(tmp_path: Path, threads: Threads) -> None:
    make(tmp_path / "a" / "b", threads)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    make(tmp_path / "a" / "b", threads)


def test_a_directory_that_cannot_be_made(tmp_path: Path, threads: Threads) -> None:
    (tmp_path / "file").write_text("in its place")
    with pytest.raises(ConfigurationError, match=r"'disks': directory .*/file cannot be used: "):
        make(tmp_path / "file", threads)


async def _refused(backend: FileBackend, reason: str) -> None:
    for call in (
        backend.allocate(NAME, 4096),
        backend.open_writer(NAME),
        backend.open_reader(NAME),
        backend.delete(NAME),
        backend.connection(NAME),
    ):
        with pytest.raises(BackendFailed, match=reason):
            await call


@ensureDeferred
async def test_a_directory_that_has_gone_is_not_made_again(
    tmp_path: Path, threads: Threads
) -> None:
    """A volumes directory that has gone is not made again.

    Break: `plugins/bootvol_plugins/file_folder.py`: `os.open(self._directory, os.O_RDONLY |
    os.O_DIRECTORY | os.O_CLOEXEC)` ->
    `os.open(self._directory.mkdir(exist_ok=True) or self._directory, os.O_RDONLY)`.
    """
    directory = tmp_path / "volumes"
    backend = make(directory, threads)
    await backend.allocate(NAME, 4096)
    directory.rename(tmp_path / "elsewhere")
    await _refused(backend, "The directory of backend disks is gone")
    assert not directory.exists()
    (tmp_path / "elsewhere").rename(directory)
    await backend.connection(NAME)


@pytest.mark.parametrize(
    "put",
    [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("other")],
    ids=["folder", "fifo", "symlink"],
)
@ensureDeferred
async def test_something_else_in_place_of_the_identity(
    put: Callable[[Path], object], tmp_path: Path, threads: Threads
) -> None:
    backend = make(tmp_path, threads)
    identity = await backend.identity()
    file = tmp_path / STORE
    text = file.read_text()
    file.unlink()
    put(file)
    with pytest.raises(BackendFailed, match=r"is not a file\. Put the original file back\."):
        await backend.identity()
    with pytest.raises(ConfigurationError, match=r"is not a file\. Put the original file back\."):
        backend.expect(identity)
    await _refused(backend, f"{STORE} in the directory of the volumes is not a file.*")
    file.rmdir() if file.is_dir() else file.unlink()
    file.write_text(text)
    await backend.allocate(NAME, 4096)


@ensureDeferred
async def test_what_must_be_mounted_is_not_used_before(tmp_path: Path, threads: Threads) -> None:
    backend = make(tmp_path, threads, mounted=True)
    await _refused(backend, "Nothing is mounted on the directory of backend disks")
    assert list(tmp_path.iterdir()) == []


@ensureDeferred
async def test_a_fault_of_the_whole_directory_is_told_from_that_of_a_volume(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a fault of the whole directory lets work wait, until the directory is well again.

    Break: `plugins/bootvol_plugins/file_folder.py`: `os.utime(folder)` -> `return`.
    """
    backend = make(tmp_path, threads)
    monkeypatch.setattr("os.ftruncate", _fault)
    with pytest.raises(BackendFailed, match=r"Making .* failed: Input/output error") as told:
        await backend.allocate(NAME, 4096)
    assert not isinstance(told.value, WrongStore)
    await backend.identity()
    monkeypatch.setattr("os.utime", _fault)
    with pytest.raises(StoreUnusable, match="directory of backend disks cannot be used: Input"):
        await backend.allocate(NAME, 4096)
    for _ in range(2):
        with pytest.raises(StoreUnusable):
            await backend.identity()
    monkeypatch.undo()
    await backend.identity()
    await backend.allocate(NAME, 4096)


def _fault(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("kind", ["volume", "snapshot"])
@ensureDeferred
async def test_only_a_volume_larger_than_its_disk_is_refused(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    backend = make(tmp_path, threads)
    nearly_full = SimpleNamespace(f_blocks=GIB // 4096, f_bavail=1, f_frsize=4096)
    monkeypatch.setattr("os.statvfs", lambda _folder: nearly_full)
    await backend.allocate(NAME, GIB)
    larger = NAME.replace("1", "2").replace("volume", kind)
    with capturedLogs() as events, pytest.raises(NoSpace) as refused:
        await backend.allocate(larger, GIB + 4096)
    assert str(refused.value) == f"Backend disks has no room for {larger}: its disk is smaller."
    assert refused.value.never_fits
    for numbers in f"{GIB + 4096} bytes are needed", f"{GIB} bytes, 4096 of them free":
        assert numbers in "".join(map(formatEvent, events)), (
            "the log has the numbers for the operator"
        )


@ensureDeferred
async def test_the_limit_for_files_is_no_lack_of_space(tmp_path: Path, threads: Threads) -> None:
    backend = make(tmp_path, threads)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (GIB, limits[1]))
    try:
        with pytest.raises(FileTooLarge, match="File too large") as refused:
            await backend.allocate(NAME, GIB + 4096)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "LimitFSIZE" in refused.value.remedy
    assert not isinstance(refused.value, NoSpace)


@ensureDeferred
async def test_a_disk_of_unknown_size_refuses_no_size(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(tmp_path, threads)
    unknown = SimpleNamespace(f_blocks=0, f_bavail=0, f_frsize=4096)
    monkeypatch.setattr("os.statvfs", lambda _folder: unknown)
    await backend.allocate(NAME, GIB)


@ensureDeferred
async def test_a_link_in_its_place_leads_nowhere(tmp_path: Path, threads: Threads) -> None:
    """A link in a volume's place is neither read nor written through.

    Break: `plugins/bootvol_plugins/file.py`: `_OURS: Final = os.O_NOFOLLOW | os.O_CLOEXEC` ->
    `_OURS: Final = os.O_CLOEXEC`.
    """
    backend = make(tmp_path / "volumes", threads)
    (tmp_path / "secret").write_bytes(bytes(4096))
    link = tmp_path / "volumes" / f"{NAME}.raw"
    link.symlink_to(tmp_path / "secret")
    for call in (
        backend.allocate(NAME, 4096),
        backend.open_writer(NAME),
        backend.open_reader(NAME),
        backend.connection(NAME),
    ):
        with pytest.raises(BackendFailed):
            await call
    await backend.delete(NAME)
    assert not link.is_symlink()
    assert (tmp_path / "secret").exists()
