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
    """Prints for each promise whether the promise holds."""

    failed: bool = False

    def pytest_configure(self, config: pytest.Config) -> None:
        """Shorten tracebacks: long ones show the arguments of functions, and so tokens."""
        config.option.tbstyle = "short"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a line for each finished test, and the reason of a failure."""
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
        """Print the reason if the suite could not be read."""
        if report.failed:
            self.failed = True
            _say(report.longreprtext)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Print the reason if the suite was given up."""
        _say(_without_token(str(excinfo.value)))


def _without_token(text: str) -> str:
    """Hide the caller's token, and the suite's wrong variants of the token."""
    token = os.environ.get(TOKEN, "")
    return re.sub(re.escape(token[:-1] or token), "(token)", text, flags=re.I) if token else text


def _say(text: str) -> None:
    sys.stdout.write(f"{lines(text)}\n")
    sys.stdout.flush()


def main(config: str, kind: str, name: str, image: str = "") -> int:
    """Run the suite; return the exit code: 1 if a promise is broken, 2 if the suite cannot run.

    :param config: path of the configuration file.
    :param kind: see :func:`bootvol.cli.check.configured.by_kind`.
    :param name: the plugin's name in the file.
    :param image: the image that the suite of a source reads.
    """
    os.environ |= {CONFIG: str(Path(config).absolute()), KIND: kind, NAME: name, IMAGE: image}
    os.environ.pop("PYTEST_ADDOPTS", None)
    report = _Report()
    words = ["-c", os.devnull, "-p", "no:cacheprovider", "-p", "no:terminal", "--capture=no"]
    ended = pytest.main([*words, "--pyargs", f"bootvol.cli.check.{kind}"], plugins=[report])
    return 1 if report.failed else int(ended)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
