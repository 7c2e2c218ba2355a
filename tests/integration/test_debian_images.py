"""Images of a real file system, which compresses and has holes, over good and bad lines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from pytest_twisted import ensureDeferred

from bootvol.testing.web import BadWeb
from tests.daemons import Running, reactor
from tests.images import MIB, qemu_img
from tests.servers import Server, serve

#: The kinds of images: options of ``qemu-img convert``, before the format.
KINDS: Final = {
    "deflate": ("-c", "-O", "qcow2"),
    "zstd": ("-c", "-o", "compression_type=zstd", "-O", "qcow2"),
    "plain": ("-O", "qcow2"),
    "small clusters": ("-c", "-o", "cluster_size=4k", "-O", "qcow2"),
}
#: Bytes per second of a slow line.
RATE: Final = 32 * MIB
#: No container fits into this spool of about a MiB.
CONFIG: Final = """
[imports]
spool_gib = 0.001
buffer_kib = {buffer}
retries = 20

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}"]
networks = ["127.0.0.0/8", "::1/128"]
checksums = "SHA256SUMS"
stall = 0.5
"""

Image = Callable[[str], bytes]


@pytest.fixture(scope="module")
def image(debian_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Return an image of a kind; each is made once."""
    folder = tmp_path_factory.mktemp("images")

    def made(kind: str) -> bytes:
        file = folder / kind
        if not file.exists():
            qemu_img("convert", "-f", "raw", *KINDS[kind], debian_disk, file)
        return file.read_bytes()

    return made


@pytest.fixture
def web() -> BadWeb:
    """A server with faults by path."""
    return BadWeb(b"", reactor, RATE)


@pytest.fixture
def server(web: BadWeb) -> Iterator[Server]:
    """The running server."""
    with serve(web) as server:
        yield server


def check_same(file: Path, disk: Path) -> None:
    """Check that a volume has the bytes of a disk, and zeros behind them."""
    with file.open("rb") as volume, disk.open("rb") as raw:
        while piece := raw.read(4 * MIB):
            assert volume.read(len(piece)) == piece, f"before byte {raw.tell()}"
        assert not any(volume.read(4 * MIB))


@pytest.mark.parametrize(
    ("kind", "fault", "buffer"),
    [
        *((kind, "good", 4096) for kind in KINDS),
        *(("deflate", fault, 256) for fault in ("drop", "drop-once", "stall", "slow")),
        ("zstd", "drop", 256),
        ("plain", "drop", 256),
        ("plain", "slow", 256),
    ],
)
@ensureDeferred
async def test_qcow2_over_the_web(
    tmp_path: Path,
    web: BadWeb,
    server: Server,
    debian_disk: Path,
    image: Image,
    kind: str,
    fault: str,
    buffer: int,
) -> None:
    web.content = image(kind)
    web.lists["SHA256SUMS"] = f"{hashlib.sha256(web.content).hexdigest()}  {fault}\n".encode()
    running = Running(tmp_path, CONFIG.format(url=server.url, buffer=buffer))
    try:
        number = await running.create(f"{server.url}{fault}")
        settled = await running.until(number, "available", "error")
        assert settled == "available", await running.progress(number)
        check_same(running.files()[0], debian_disk)
    finally:
        await running.stop()


@ensureDeferred
async def test_one_wrong_byte_in_a_cluster(
    tmp_path: Path, web: BadWeb, server: Server, image: Image
) -> None:
    """The stated digest covers the compressed bytes, even if they could be decompressed."""
    good = image("deflate")
    web.lists["SHA256SUMS"] = f"{hashlib.sha256(good).hexdigest()}  good\n".encode()
    at = len(good) // 2
    web.content = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    running = Running(tmp_path, CONFIG.format(url=server.url, buffer=4096))
    try:
        number = await running.create(f"{server.url}good")
        assert await running.until(number, "available", "error") == "error"
        error = (await running.progress(number))["error"]
        assert error["code"] in {"digest-mismatch", "image-corrupt"}
        assert running.files() == []
    finally:
        await running.stop()
