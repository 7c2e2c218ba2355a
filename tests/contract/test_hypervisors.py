"""Every first-party hypervisor, and the hypervisor in memory, passes the same suite."""

import shutil
from pathlib import Path

import pytest

from bootvol.interfaces import PluginContext
from bootvol.model import ConnectionInfo, Disk
from bootvol.testing.hypervisors import HypervisorContract, Subject, make_hypervisor_tests
from bootvol.testing.machines import READY, MemoryHypervisor, MemoryServer
from bootvol_plugins.qemu.hypervisor import QemuHypervisor
from tests import guest
from tests.machines import disk_file, options


def _memory(context: PluginContext, folder: Path) -> Subject:
    servers: dict[str, MemoryServer] = {}

    async def turn_off(server: str) -> None:
        servers[server].runs = False

    return Subject(
        MemoryHypervisor(context.name, context.reactor, servers),
        lambda: MemoryHypervisor(context.name, context.reactor, servers),
        ConnectionInfo("memory", "boot"),
        ConnectionInfo("memory", "spare"),
        ConnectionInfo("file", str(folder / "missing")),
        READY,
        turn_off,
    )


TestMemory = make_hypervisor_tests(_memory)


class TestQemu(HypervisorContract):
    """QEMU with a Linux guest."""

    @pytest.fixture
    def made(self, context: PluginContext, tmp_path: Path, guest_image: Path) -> Subject:
        shutil.copy(guest_image, tmp_path / "boot.raw")

        def make() -> QemuHypervisor:
            return QemuHypervisor(context.name, options(tmp_path, shutdown_timeout=2.0), context)

        async def turn_off(server: str) -> None:
            order = disk_file(tmp_path / "order.raw", guest.POWER_OFF)
            await make().attach(server, Disk("vdz", order))

        return Subject(
            make(),
            make,
            ConnectionInfo("file", str(tmp_path / "boot.raw")),
            disk_file(tmp_path / "spare.raw"),
            ConnectionInfo("file", str(tmp_path / "missing")),
            guest.READY.encode(),
            turn_off,
        )
