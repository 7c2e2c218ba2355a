"""Another process that uses a backend, as another daemon does.

Tests suspend and continue the process.

The process prints a line after each step, and waits for a line before the next step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from bootvol.errors import BackendFailed
from bootvol.interfaces import IBlockBackend, IClosable, PluginContext
from bootvol.reactors import installed
from bootvol.testing.volumes import SIZE, noise, write
from bootvol.threads import Threads

#: Seconds until the other process ends in any case.
_LIMIT: Final = 300
#: The byte that the other process writes late.
LATE: Final = b"\xee"


@attrs.frozen
class Elsewhere:
    """A recipe to create the same backend in another process.

    :ivar make: a function of a module.
    :ivar folder: the folder to pass to ``make``.
    """

    make: Callable[[PluginContext, Path], IBlockBackend]
    folder: Path

    def start(self, volume: str) -> Other:
        """Start a process that creates a volume and writes until its next step.  Blocks."""
        where = f"{self.make.__module__}:{self.make.__name__}"
        command = [sys.executable, "-m", __name__, where, str(self.folder), volume]
        process = subprocess.Popen(  # noqa: S603 - a list, of this program's own words
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return Other(process)


class Other:
    """The other process.  All methods block."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def await_step(self) -> str:
        """Wait for the process to complete a step.  Return its line."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        assert said, "the other process has ended"
        return said

    def stop(self) -> None:
        """Suspend the process."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Continue the process with its next step."""
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


# --- in the other process ------------------------------------------------------------------------


async def _work(backend: IBlockBackend, volume: str) -> None:
    await backend.allocate(volume, SIZE)
    writer = await backend.open_writer(volume)
    await writer.write(0, memoryview(bytearray(noise(SIZE))))
    await writer.flush()
    late = memoryview(bytearray(LATE * SIZE))
    more = _next_step("written")
    # The backend may have fenced this process by then.
    with suppress(BackendFailed):
        while not more.called:
            # Write the same bytes again: the content stays the same at any point of suspension.
            await writer.write(SIZE // 2, memoryview(bytearray(noise(SIZE)))[SIZE // 2 :])
    await more
    with suppress(BackendFailed):
        await writer.write(0, late)
        await writer.flush()
    with suppress(BackendFailed):
        await writer.close()
    for step in (
        lambda: backend.delete(volume),
        lambda: backend.allocate(volume, SIZE),
        lambda: write(backend, volume, 0, bytes(late)),
    ):
        with suppress(BackendFailed):
            await step()
    await _next_step("late")


def _next_step(done: str) -> Deferred[str]:
    print(done, flush=True)
    return deferToThread(sys.stdin.readline)


def _main(where: str, folder: str, volume: str) -> None:
    from twisted.internet import task

    signal.alarm(_LIMIT)
    module, _, name = where.partition(":")
    make: Callable[[PluginContext, Path], IBlockBackend] = getattr(import_module(module), name)
    reactor = installed()
    threads = Threads(reactor, "elsewhere", 4)

    async def run() -> None:
        threads.start()
        backend = make(PluginContext(reactor, threads, "under-test"), Path(folder))
        try:
            await _work(backend, volume)
            if IClosable.providedBy(backend):
                await IClosable(backend).close()
        finally:
            threads.stop()

    task.react(lambda _: Deferred.fromCoroutine(run()))


if __name__ == "__main__":
    _main(*sys.argv[1:])
