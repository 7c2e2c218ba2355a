"""Processes that the daemon starts: their output, their end, and their descriptors."""

from __future__ import annotations

import resource
import signal

import pytest
from pytest_twisted import ensureDeferred

from bootvol.processes import Child, spawn
from bootvol.reactors import installed

PIPES = {1: "r", 2: "r"}


async def run(script: str, child: Child | None = None, **more: str) -> Child:
    """Run a script of the shell to its end."""
    started = spawn(
        installed(), child or Child(), ["/bin/sh", "-c", script], PIPES, environment=more
    )
    await started.ended.wait()
    return started


@ensureDeferred
async def test_the_output_and_the_exit_code_are_kept() -> None:
    child = await run("echo out; echo error >&2; exit 3")
    assert (child.out, child.err, await child.ended.wait()) == ("out\n", "error\n", 3)
    assert child.pid is None


@ensureDeferred
async def test_output_beyond_the_limit_is_dropped() -> None:
    child = await run("echo 0123456789; echo abcdefghij >&2", Child(kept=4))
    assert (child.out, child.err) == ("0123", "abcd")


@ensureDeferred
async def test_a_signal_ends_a_process_as_its_negative_number() -> None:
    child = spawn(installed(), Child(), ["/bin/sleep", "60"])
    child.kill()
    assert await child.ended.wait() == -signal.SIGKILL
    # The process is gone, so the signal goes to nobody.
    child.kill("TERM")


@ensureDeferred
async def test_a_process_has_few_variables_and_an_empty_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "secret")
    child = await run('cat; echo "$SECRET-$LC_ALL-$MORE"', MORE="more")
    assert child.out == "-C-more\n"


def test_no_process_starts_without_enough_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            spawn(installed(), Child(), ["/bin/true"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
