"""The backend lvm without LVM; tests/lvm has the tests with LVM."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bootvol import plugins
from bootvol.errors import ConfigurationError
from bootvol.interfaces import BackendPlugin, PluginContext
from bootvol.threads import Threads
from bootvol_plugins.lvm import commands
from bootvol_plugins.lvm.holders import is_left_open
from bootvol_plugins.lvm.options import LvmOptions
from tests.daemons import reactor
from tests.disks import block_device


def test_without_lvm_it_is_said_what_to_install(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(commands, "_SYSTEM", "/nowhere")
    plugin = plugins.load(BackendPlugin, "lvm")
    with pytest.raises(ConfigurationError, match="apt-get install lvm2"):
        plugin.factory(plugin.settings(group="vg0"), PluginContext(reactor, threads, "disks"))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"group": ""},
        {"group": "-f"},
        {"group": "a b"},
        {"group": "vg0", "pool": 'x" || lv_name="y'},
        {"group": "vg0", "full_percent": 0},
        {"group": "vg0", "full_percent": 101},
    ],
)
def test_what_cannot_be_a_name_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LvmOptions.model_validate(wrong)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("", "no reason given"),
        ('  WARNING: old\n  Volume group "x" not found\n  more\n', 'Volume group "x" not found'),
        ("  In use.\n", "In use"),
        ("x" * 5000, "x" * 200),
    ],
)
def test_what_is_shown_of_a_complaint(said: str, shown: str) -> None:
    assert commands.complaint(said) == shown


@pytest.mark.parametrize(
    ("state", "opened", "found"),
    [("Z", True, True), ("S", True, False), ("Z", False, False), ("", True, False)],
)
def test_a_process_that_has_ended_and_hangs(
    tmp_path: Path, state: str, opened: bool, found: bool
) -> None:
    """Only a process that has ended counts, and only the device itself."""
    with block_device(tmp_path / "x", 1024 * 1024) as device:
        files = tmp_path / "proc" / "7" / "task" / "8" / "fd"
        files.mkdir(parents=True)
        (tmp_path / "proc" / "self").mkdir()
        (tmp_path / "proc" / "7" / "stat").write_text(f"7 (a ) Z) {state} 1 7")
        (files / "0").symlink_to("/dev/null")
        (files / "1").symlink_to(tmp_path / "gone")
        (files / "2").symlink_to(device.path if opened else "/dev/zero")
        number = os.stat(device.path).st_rdev
        shown = is_left_open((os.major(number), os.minor(number)), tmp_path / "proc")
    assert shown is found


def test_a_process_that_goes_while_its_threads_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has gone has nothing open.

    Break: `plugins/bootvol_plugins/lvm/holders.py`: `FileNotFoundError, ProcessLookupError,` -> ``.
    """
    (tmp_path / "7" / "task").mkdir(parents=True)
    (tmp_path / "7" / "stat").write_text("7 (a) Z 1 7")

    def gone(_folder: Path) -> Iterator[Path]:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))

    monkeypatch.setattr(Path, "iterdir", gone)
    assert not is_left_open((1, 2), tmp_path)
