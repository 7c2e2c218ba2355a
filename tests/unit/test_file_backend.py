"""The file backend and its directory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from pytest_twisted import ensureDeferred

from bootvol.errors import BackendFailed, ConfigurationError, NoSpace
from bootvol.interfaces import PluginContext
from bootvol.model import GIB
from bootvol.reactors import installed
from bootvol.threads import Threads
from bootvol_plugins.file import PLUGIN, FileBackend, FileOptions

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

    Break: `plugins/bootvol_plugins/file.py`: `os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY
    | os.O_CLOEXEC)` -> `os.open(self._directory.mkdir(exist_ok=True) or self._directory,
    os.O_RDONLY)`.
    """
    directory = tmp_path / "volumes"
    backend = make(directory, threads)
    await backend.allocate(NAME, 4096)
    directory.rename(tmp_path / "elsewhere")
    await _refused(backend, "The directory of backend disks is gone")
    assert not directory.exists()
    (tmp_path / "elsewhere").rename(directory)
    await backend.connection(NAME)


@ensureDeferred
async def test_what_must_be_mounted_is_not_used_before(tmp_path: Path, threads: Threads) -> None:
    backend = make(tmp_path, threads, mounted=True)
    await _refused(backend, "Nothing is mounted on the directory of backend disks")
    assert list(tmp_path.iterdir()) == []


@ensureDeferred
async def test_what_was_allocated_needs_no_space_again(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(tmp_path, threads)
    await backend.allocate(NAME, GIB)
    full = SimpleNamespace(f_bavail=0, f_frsize=4096)
    monkeypatch.setattr("os.statvfs", lambda _folder: full)
    await backend.allocate(NAME, GIB)
    with pytest.raises(NoSpace, match="Backend disks has no room for the volume"):
        await backend.allocate(NAME.replace("1", "2"), GIB)


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
