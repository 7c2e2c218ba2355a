"""The contract suite of :class:`bootvol.interfaces.IHypervisor`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

import attrs
import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from bootvol.clocks import sleep
from bootvol.errors import HypervisorFailed
from bootvol.interfaces import (
    IConfiguringHypervisor,
    IHypervisor,
    IPoweringHypervisor,
    IResizingHypervisor,
    PluginContext,
)
from bootvol.model import ConnectionInfo, Disk, Machine
from bootvol.reactors import installed
from bootvol.testing.contract import Contract
from bootvol.testing.volumes import cancelled

#: Names of servers.  No other server on the machine has these names.
_SERVER, _OTHER = sorted(f"server-{uuid4()}" for _ in range(2))
#: Seconds that a guest may take to start, to detect a disk or to turn itself off.
_PATIENCE: Final = 120
_LOOK: Final = 0.1


@attrs.frozen
class Subject:
    """A hypervisor under test, with facts for the suite.

    :ivar hypervisor: the hypervisor, as created by a starting daemon.
    :ivar again: creates the hypervisor again, as a new daemon does after the former one was killed.
    :ivar boot: connection of a boot disk.  Its guest releases other disks on request.
    :ivar spare: connection of another disk.
    :ivar missing: connection of a missing disk.
    :ivar ready: console output of a started guest.
    :ivar turn_off: makes the started guest of a running server turn the server off.
    """

    hypervisor: IHypervisor
    again: Callable[[], IHypervisor]
    boot: ConnectionInfo
    spare: ConnectionInfo
    missing: ConnectionInfo
    ready: bytes
    turn_off: Callable[[str], Awaitable[None]]

    @property
    def machine(self) -> Machine:
        """A bootable machine."""
        return Machine(256, 1, (Disk("vda", self.boot),))

    async def up(self, server: str) -> None:
        """Start a server, and wait until its guest has started."""
        await self.hypervisor.start(server, self.machine)
        await self.says(server, self.ready)

    async def says(self, server: str, text: bytes) -> None:
        """Wait until a server has written ``text`` to its console."""
        for _ in range(round(_PATIENCE / _LOOK)):
            said = await self.hypervisor.console(server, 1024 * 1024)
            if text in said:
                return
            await pause()
        raise AssertionError(f"{text!r} is not among {said.decode('utf-8', 'replace')}")

    async def is_off(self, server: str) -> None:
        """Wait until a server no longer runs."""
        for _ in range(round(_PATIENCE / _LOOK)):
            if server not in await self.hypervisor.running():
                return
            await pause()
        raise AssertionError(f"{server} still runs")


def pause() -> Deferred[None]:
    """Return a Deferred for the time of the next check."""
    return sleep(installed(), _LOOK)


class HypervisorContract(Contract):
    """The tests for every hypervisor.  Subclasses provide the fixture ``made``."""

    @pytest_twisted.async_yield_fixture
    async def subject(self, made: Subject) -> AsyncIterator[Subject]:
        """Provide the hypervisor under test.  Stop all of its servers at the end."""
        yield made
        for server in await made.hypervisor.running():
            await made.hypervisor.stop(server)

    @ensureDeferred
    async def test_provides_the_interface(self, subject: Subject) -> None:
        verifyObject(IHypervisor, subject.hypervisor)
        assert subject.hypervisor.name == "under-test"

    @ensureDeferred
    async def test_runs_from_start_to_stop(self, subject: Subject) -> None:
        hypervisor = subject.hypervisor
        assert not await hypervisor.running()
        for _ in range(2):
            await hypervisor.start(_SERVER, subject.machine)
            assert list(await hypervisor.running()) == [_SERVER]
        for _ in range(2):
            await hypervisor.stop(_SERVER)
            assert not await hypervisor.running()
            assert await hypervisor.console(_SERVER, 1000) == b""

    @ensureDeferred
    async def test_starting_again_leaves_the_guest_alone(self, subject: Subject) -> None:
        await subject.up(_SERVER)
        said = await subject.hypervisor.console(_SERVER, 1024 * 1024)
        await subject.hypervisor.start(_SERVER, subject.machine)
        assert await subject.hypervisor.console(_SERVER, 1024 * 1024) == said

    @ensureDeferred
    async def test_a_server_that_never_was(self, subject: Subject) -> None:
        hypervisor = subject.hypervisor
        await hypervisor.stop(_SERVER)
        await hypervisor.detach(_SERVER, "vdb")
        assert await hypervisor.console(_SERVER, 1000) == b""
        with pytest.raises(HypervisorFailed):
            await hypervisor.attach(_SERVER, Disk("vdb", subject.spare))

    @ensureDeferred
    async def test_the_console_ends_with_what_came_last(self, subject: Subject) -> None:
        await subject.up(_SERVER)
        said = await subject.hypervisor.console(_SERVER, 1024 * 1024)
        for length in (0, 1, len(said) // 2, len(said)):
            assert await subject.hypervisor.console(_SERVER, length) == said[len(said) - length :]

    @ensureDeferred
    async def test_disks_come_and_go(self, subject: Subject) -> None:
        hypervisor = subject.hypervisor
        await subject.up(_SERVER)
        disk = Disk("vdb", subject.spare)
        for _ in range(2):
            for _ in range(2):
                await hypervisor.attach(_SERVER, disk)
            for _ in range(2):
                await hypervisor.detach(_SERVER, "vdb")
        # The disk is free, although the server still runs.
        await hypervisor.start(_OTHER, Machine(64, 1, (disk,)))
        assert sorted(await hypervisor.running()) == [_SERVER, _OTHER]

    @ensureDeferred
    async def test_a_place_holds_one_disk(self, subject: Subject) -> None:
        await subject.up(_SERVER)
        with pytest.raises(HypervisorFailed):
            await subject.hypervisor.attach(_SERVER, Disk("vda", subject.spare))
        await subject.hypervisor.attach(_SERVER, Disk("vda", subject.boot))

    @ensureDeferred
    async def test_what_is_stopped_holds_no_disk(self, subject: Subject) -> None:
        hypervisor = subject.hypervisor
        await subject.up(_SERVER)
        spare = Disk("vdb", subject.spare)
        await hypervisor.attach(_SERVER, spare)
        await hypervisor.stop(_SERVER)
        await hypervisor.detach(_SERVER, "vdb")
        await hypervisor.start(_OTHER, Machine(256, 1, (*subject.machine.disks, spare)))
        assert list(await hypervisor.running()) == [_OTHER]

    @ensureDeferred
    async def test_another_daemon_knows_its_servers(self, subject: Subject) -> None:
        await subject.up(_SERVER)
        said = await subject.hypervisor.console(_SERVER, 1024 * 1024)
        another = subject.again()
        assert list(await another.running()) == [_SERVER]
        await another.start(_SERVER, subject.machine)
        assert await another.console(_SERVER, 1024 * 1024) == said
        await another.attach(_SERVER, Disk("vdb", subject.spare))
        await subject.again().detach(_SERVER, "vdb")
        await another.stop(_SERVER)
        assert not await subject.hypervisor.running()

    @ensureDeferred
    async def test_a_guest_turns_its_server_off(self, subject: Subject) -> None:
        hypervisor = subject.hypervisor
        await subject.up(_SERVER)
        await subject.turn_off(_SERVER)
        await subject.is_off(_SERVER)
        assert subject.ready in await hypervisor.console(_SERVER, 1024 * 1024)
        await hypervisor.detach(_SERVER, "vdb")
        with pytest.raises(HypervisorFailed):
            await hypervisor.attach(_SERVER, Disk("vdb", subject.spare))
        await hypervisor.start(_SERVER, subject.machine)
        assert list(await hypervisor.running()) == [_SERVER]

    @ensureDeferred
    async def test_a_disk_that_is_not_there(self, subject: Subject) -> None:
        hypervisor = subject.hypervisor
        missing = Disk("vdb", subject.missing)
        with pytest.raises(HypervisorFailed):
            await hypervisor.start(_SERVER, Machine(64, 1, (*subject.machine.disks, missing)))
        assert not await hypervisor.running()
        await hypervisor.stop(_SERVER)
        await hypervisor.start(_SERVER, subject.machine)
        with pytest.raises(HypervisorFailed):
            await hypervisor.attach(_SERVER, missing)
        await hypervisor.attach(_SERVER, Disk("vdc", subject.spare))

    @ensureDeferred
    async def test_what_is_cancelled_is_taken_away(self, subject: Subject) -> None:
        hypervisor = subject.hypervisor
        for pauses in (0, 1, 3):
            starting = Deferred.fromCoroutine(hypervisor.start(_SERVER, subject.machine))
            for _ in range(pauses):
                await pause()
            if not starting.called:
                starting.cancel()
                with pytest.raises(CancelledError):
                    await starting
            await hypervisor.stop(_SERVER)
            assert not await hypervisor.running()
        await subject.up(_SERVER)
        await cancelled(hypervisor.attach(_SERVER, Disk("vdb", subject.spare)))
        await hypervisor.detach(_SERVER, "vdb")
        await hypervisor.start(_OTHER, Machine(64, 1, (Disk("vda", subject.spare),)))

    # --- optional interfaces ----------------------------------------------------------------------

    @ensureDeferred
    async def test_what_is_turned_off_keeps_its_console_and_holds_no_disk(
        self, subject: Subject
    ) -> None:
        hypervisor = subject.hypervisor
        if not IPoweringHypervisor.providedBy(hypervisor):
            pytest.skip("it turns no servers off")
        powering = IPoweringHypervisor(hypervisor)
        await powering.power_off(_SERVER, False)
        await subject.up(_SERVER)
        await hypervisor.attach(_SERVER, Disk("vdb", subject.spare))
        for _ in range(2):
            await powering.power_off(_SERVER, False)
            assert not await hypervisor.running()
        assert subject.ready in await hypervisor.console(_SERVER, 1024 * 1024)
        await hypervisor.start(_OTHER, Machine(64, 1, (Disk("vda", subject.spare),)))
        await hypervisor.start(_SERVER, subject.machine)
        assert sorted(await hypervisor.running()) == [_SERVER, _OTHER]
        await powering.power_off(_SERVER, True)
        assert list(await hypervisor.running()) == [_OTHER]
        # Another daemon turns the server on, and off.
        again = IPoweringHypervisor(subject.again())
        await again.start(_SERVER, subject.machine)
        await again.power_off(_SERVER, False)
        await again.stop(_SERVER)
        assert await hypervisor.console(_SERVER, 1000) == b""

    @ensureDeferred
    async def test_a_server_with_a_config_drive(self, subject: Subject) -> None:
        if not IConfiguringHypervisor.providedBy(subject.hypervisor):
            pytest.skip("it gives no config drives")
        files = {"openstack/latest/user_data": b"\0 any bytes", "openstack/content/0000": b""}
        machine = attrs.evolve(subject.machine, files=files)
        for _ in range(2):
            await subject.hypervisor.start(_SERVER, machine)
            await subject.says(_SERVER, subject.ready)
            assert list(await subject.hypervisor.running()) == [_SERVER]
            await subject.hypervisor.stop(_SERVER)

    @ensureDeferred
    async def test_a_disk_becomes_larger_while_its_server_runs(self, subject: Subject) -> None:
        hypervisor = subject.hypervisor
        if not IResizingHypervisor.providedBy(hypervisor):
            return  # The hypervisor promises nothing: the core refuses such growth.
        resizing, disk = IResizingHypervisor(hypervisor), Disk("vdb", subject.spare)
        with pytest.raises(HypervisorFailed):
            await resizing.resize(_SERVER, disk, 2 * 1024 * 1024)
        await subject.up(_SERVER)
        with pytest.raises(HypervisorFailed):
            await resizing.resize(_SERVER, disk, 2 * 1024 * 1024)
        await hypervisor.attach(_SERVER, disk)
        if subject.spare.kind == "file":
            size = Path(subject.spare.address).stat().st_size + 1024 * 1024
            os.truncate(subject.spare.address, size)
            for _ in range(2):
                await resizing.resize(_SERVER, disk, size)
            assert Path(subject.spare.address).stat().st_size == size
        await hypervisor.detach(_SERVER, "vdb")


def make_hypervisor_tests(
    make: Callable[[PluginContext, Path], Subject],
) -> type[HypervisorContract]:
    """Return the contract suite of one hypervisor, for a test module to name.

    :param make: creates the subject from a context and an empty folder; called once per test.
    """

    class TestHypervisor(HypervisorContract):
        @pytest.fixture
        def made(self, context: PluginContext, tmp_path: Path) -> Subject:
            return make(context, tmp_path)

    return TestHypervisor
