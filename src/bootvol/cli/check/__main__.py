"""Runs one suite in this process: `python -m bootvol.cli.check CONFIG KIND NAME [IMAGE]`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import attrs
import pytest

from bootvol.cli.check.configured import CONFIG, IMAGE, KIND, NAME, TOKEN
from bootvol.cli.text import lines


@attrs.define(eq=False)  # pytest wants to hash it
class _Report:
    """Says of each promise whether it holds."""

    failed: bool = False

    def pytest_configure(self, config: pytest.Config) -> None:
        """Let tracebacks be short: long ones show what functions were called with, tokens too."""
        config.option.tbstyle = "short"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a line for a test that has ended, and the reason of one that failed."""
        promise = report.nodeid.rpartition("::test_")[2].replace("_", " ")
        if report.failed:
            self.failed = True
            when = "" if report.when == "call" else f" ({report.when})"
            _say(f"FAILS        {promise}{when}\n{_without_token(report.longreprtext)}")
        elif report.skipped and isinstance(report.longrepr, tuple):
            _say(f"not checked  {promise}: {report.longrepr[2].removeprefix('Skipped: ')}")
        elif report.when == "call":
            _say(f"holds        {promise}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Print why the suite could not be read."""
        if report.failed:
            self.failed = True
            _say(report.longreprtext)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Print why the suite was given up."""
        _say(_without_token(str(excinfo.value)))


def _without_token(text: str) -> str:
    """Hide the caller's token, also as the suite has changed it to be wrong."""
    token = os.environ.get(TOKEN, "")
    return re.sub(re.escape(token[:-1] or token), "(token)", text, flags=re.I) if token else text


def _say(text: str) -> None:
    sys.stdout.write(f"{lines(text)}\n")
    sys.stdout.flush()


def main(config: str, kind: str, name: str, image: str = "") -> int:
    """Run the suite; return the exit code: 1 if a promise is broken, 2 if it could not be told.

    :param config: path of the configuration file.
    :param kind: as in :func:`bootvol.cli.check.configured.by_kind`.
    :param name: the plugin's in the file.
    :param image: what the suite of a source reads.
    """
    os.environ |= {CONFIG: str(Path(config).absolute()), KIND: kind, NAME: name, IMAGE: image}
    os.environ.pop("PYTEST_ADDOPTS", None)
    report = _Report()
    words = ["-c", os.devnull, "-p", "no:cacheprovider", "-p", "no:terminal", "--capture=no"]
    ended = pytest.main([*words, "--pyargs", f"bootvol.cli.check.{kind}"], plugins=[report])
    return 1 if report.failed else int(ended)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
