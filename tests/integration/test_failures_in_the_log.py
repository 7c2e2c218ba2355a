"""The log of a failed import: the volume, its tenant, and the request."""

from __future__ import annotations

from pathlib import Path

from pytest_twisted import ensureDeferred
from twisted.logger import capturedLogs, formatEvent

from tests.daemons import TENANT, Running

_MIB = 1024 * 1024
_SLOW = "[imports]\nbandwidth_mib = 1.0"


async def ask(daemon: Running) -> tuple[int, str]:
    """Create a volume of the image; return the ids of the volume and of the request."""
    wanted = {"volume": {"size": 1, "imageRef": "wrong.raw"}}
    answer = await daemon.call("POST", "os-volumes", wanted)
    return answer.json["volume"]["id"], answer.headers["x-compute-request-id"]


@ensureDeferred
async def test_the_request_is_named_after_a_restart(tmp_path: Path) -> None:
    daemon = Running(tmp_path, _SLOW)
    (daemon.images / "wrong.raw").write_bytes(b"\x01" * 16 * _MIB)
    (daemon.images / "index.toml").write_text(
        f'[[images]]\nid = "wrong.raw"\nfile = "wrong.raw"\nsha512 = "{"0" * 128}"\n'
    )
    try:
        first, other = await ask(daemon), await ask(daemon)
        await daemon.until(first[0], "downloading")
    finally:
        await daemon.stop()
    with capturedLogs() as logs:
        daemon = Running(tmp_path)
        try:
            for number, _ in (first, other):
                await daemon.until(number, "error")
        finally:
            await daemon.stop()
    told = [formatEvent(each) for each in logs if "failed" in str(each.get("log_format"))]
    lines = {
        number: [each for each in told if f"volume {number} " in each and request in each]
        for number, request in (first, other)
    }
    assert all(len(found) == 1 for found in lines.values()), told
    assert all(f"tenant {TENANT}, asked for by req-" in found[0] for found in lines.values())
    # The second volume waited for the first one's import, and failed with the same error.
    assert f"failed as volume {first[0]} did" in lines[other[0]][0]
