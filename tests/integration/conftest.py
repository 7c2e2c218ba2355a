"""Fixtures of the tests of QEMU's servers."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted

from bootvol.model import ConnectionInfo
from bootvol.threads import Threads
from bootvol_plugins.qemu.hypervisor import QemuHypervisor
from tests.machines import disk_file, hypervisor


@pytest_twisted.async_yield_fixture
async def qemu(tmp_path: Path, threads: Threads) -> AsyncIterator[QemuHypervisor]:
    """The plugin. The fixture stops its servers afterwards."""
    made = hypervisor(tmp_path, threads, tls=tmp_path / "tls", detach_timeout=60.0)
    yield made
    for server in {*await made.running(), *os.listdir(tmp_path / "servers")}:
        await made.stop(server)


@pytest.fixture
def empty(tmp_path: Path) -> ConnectionInfo:
    """A disk without anything to boot."""
    return disk_file(tmp_path / "empty.raw")


@pytest.fixture
def linux(tmp_path: Path, guest_image: Path) -> ConnectionInfo:
    """A disk with a bootable Linux."""
    shutil.copy(guest_image, tmp_path / "linux.raw")
    return ConnectionInfo("file", str(tmp_path / "linux.raw"))
