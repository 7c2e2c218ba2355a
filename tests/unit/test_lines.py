"""Lines of a program about an image: complete, read in a thread, and bounded."""

from __future__ import annotations

import struct
import threading
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as bounds
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from bootvol.errors import ImageBomb
from bootvol.imaging import containers, lines
from bootvol.imaging.containers import Containers
from bootvol.imaging.lines import Lines
from bootvol.imaging.sandbox import Sandbox
from bootvol.jail import Jail
from bootvol.model import GIB
from bootvol.threads import Threads
from tests.daemons import reactor


@bounds(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(st.sampled_from([b"a", b"b", b"\n"]), max_size=50).map(b"".join),
    cuts=st.lists(st.integers(0, 50), max_size=5),
)
@ensureDeferred
async def test_blocks_end_anywhere(threads: Threads, text: bytes, cuts: list[int]) -> None:
    taken: list[bytes] = []
    reader = Lines(threads, taken.append, "too many")
    edges = [0, *sorted(cuts), len(text)]
    for start, end in pairwise(edges):
        await reader.read(text[start:end])
    assert taken == text.split(b"\n")[:-1]


@ensureDeferred
async def test_a_program_that_writes_without_end(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program waits for its reader, a thread, and is killed after too many lines.

    Break: `src/bootvol/imaging/sandbox.py`: `pipe.pauseProducing()` -> `pass`

    Break: `src/bootvol/imaging/lines.py`: `await self._threads.run(self._read, block)` ->
    `self._read(block)`
    """
    monkeypatch.setattr(lines, "MOST", 1_000_000)
    at_once, reading, where = [], 0, set()
    reader = Lines(threads, lambda _: where.add(threading.get_ident()), "too many")

    async def read(block: bytes) -> None:
        nonlocal reading
        reading += 1
        at_once.append(reading)
        try:
            await reader.read(block)
        finally:
            reading -= 1

    program = Sandbox(reactor, 2**30, Jail()).start(["yes"], 60, reader=read)
    with pytest.raises(ImageBomb, match="too many"):
        await program.end()
    assert set(at_once) == {1}
    assert len(at_once) > 5
    assert threading.get_ident() not in where


def many_extents(path: Path, count: int) -> None:
    """Write a small qcow2 image with a disk in many extents, alternately data and holes.

    All entries of the L1 table lead to one L2 table, as the specification allows.
    """
    cluster, per_table = 512, 64
    tables = count // per_table
    first = 8 * cluster
    second = first + -(-8 * tables // cluster) * cluster
    data, refcounts = second + cluster, second + 2 * cluster
    head = struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 9, count * cluster, 0, tables, first,
        refcounts, 1, 0, 0, 0, 0, 0, 4, 104,
    )  # fmt: skip
    with path.open("wb") as file:
        file.write(head.ljust(first, b"\0") + struct.pack(">Q", second | 1 << 63) * tables)
        file.seek(second)
        entries = [(data | 1 << 63) if n % 2 else 0 for n in range(per_table)]
        file.write(struct.pack(">64Q", *entries) + b"D" * cluster)
        file.write(struct.pack(">Q", refcounts + cluster).ljust(cluster, b"\0"))
        file.write(struct.pack(">H", 1) * (cluster // 2))


@pytest.mark.parametrize("most", [1500, 3000])
@ensureDeferred
async def test_an_image_in_more_pieces_than_are_read(
    threads: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Break: `src/bootvol/imaging/lines.py`: `if self._count > MOST:` -> `if False:`"""
    monkeypatch.setattr(lines, "MOST", most)
    # These images use clusters twice, and would be refused earlier for that reason.
    monkeypatch.setattr(containers, "_NOT_RIGHT", frozenset())
    image = tmp_path / "many.qcow2"
    many_extents(image, 2048)
    opened = Containers(Sandbox(reactor, 2**30, Jail()), threads)
    async with AsyncExitStack() as stack:
        with image.open("rb") as file:
            opening = opened.open("qcow2", file.fileno(), GIB, stack)
            if most < 2048:
                with pytest.raises(ImageBomb, match="pieces"):
                    await opening
            else:
                assert (await opening).size == 2048 * 512
