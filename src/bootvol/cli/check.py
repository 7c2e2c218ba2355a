"""The suite of `bootvol plugin check`: pytest collects this module in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import attrs
import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol import plugins, settings
from bootvol.interfaces import IBlockBackend, IClosable, PluginContext
from bootvol.testing.backends import VOLUMES, BlockBackendContract

_CONFIG: Final = "BOOTVOL_CHECK_CONFIG"
_NAME: Final = "BOOTVOL_CHECK_NAME"


class TestBackend(BlockBackendContract):
    """The backend as its operator has configured it."""

    @pytest_twisted.async_yield_fixture
    async def backend(self, context: PluginContext) -> AsyncIterator[IBlockBackend]:
        configured = settings.load(Path(os.environ[_CONFIG]))
        (mine,) = (each for each in configured.backends if each.name == os.environ[_NAME])
        backend = plugins.build(mine.descriptor, mine.options, context)
        try:
            yield backend
        finally:
            try:
                for volume in VOLUMES:
                    await backend.delete(volume)
            finally:
                if IClosable.providedBy(backend):
                    await backend.close()

    @ensureDeferred
    async def test_shares_if_declared(self, backend: IBlockBackend, neighbours: Path) -> None:
        _not_here(backend)

    @ensureDeferred
    async def test_what_cannot_be_shared_leaves_nothing(
        self, backend: IBlockBackend, neighbours: Path
    ) -> None:
        _not_here(backend)


def _not_here(backend: IBlockBackend) -> None:
    if backend.capabilities.shares:
        pytest.skip("it would need files of its own beside the volumes")


@attrs.define(eq=False)  # pytest wants to hash it
class _Report:
    """Says of each promise whether it holds."""

    failed: bool = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a line for a test that has ended, and the reason of one that failed."""
        promise = report.nodeid.rpartition("::test_")[2].replace("_", " ")
        if report.failed:
            self.failed = True
            when = "" if report.when == "call" else f" ({report.when})"
            _say(f"FAILS        {promise}{when}\n{report.longreprtext}")
        elif report.skipped and isinstance(report.longrepr, tuple):
            _say(f"not checked  {promise}: {report.longrepr[2].removeprefix('Skipped: ')}")
        elif report.when == "call":
            _say(f"holds        {promise}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Print why the suite could not be read."""
        if report.failed:
            self.failed = True
            _say(report.longreprtext)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(config: str, name: str) -> int:
    """Run the suite; return the exit code.

    :param config: path of the configuration file.
    :param name: the backend's in it.
    """
    os.environ |= {_CONFIG: str(Path(config).absolute()), _NAME: name}
    os.environ.pop("PYTEST_ADDOPTS", None)
    report = _Report()
    words = ["-c", os.devnull, "-p", "no:cacheprovider", "-p", "no:terminal", "--capture=no"]
    ended = pytest.main([*words, "--pyargs", "bootvol.cli.check"], plugins=[report])
    return int(report.failed or ended != pytest.ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
