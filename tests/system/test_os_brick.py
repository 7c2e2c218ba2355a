"""os-brick, the library by which Nova's and Cinder's hosts open volumes, on bootvol's routes."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any, Final

from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from bootvol.testing.backends import noise
from tests.ceph import Cluster
from tests.cinder import OF_NOVA, PEOPLE, ask, made
from tests.daemons import Running
from tests.system.test_clients import ROOT
from tests.waiting import LIMIT

#: Ceph's modules of Debian.  Nothing else of Debian's may come before the environment's packages.
_CEPH: Final = ("rados", "rbd")
_DEBIAN: Final = Path("/usr/lib/python3/dist-packages")
_SERVER: Final = "aaaaaaaa-0000-4000-8000-000000000001"
_HOST: Final = {"host": "compute1", "ip": "127.0.0.1", "mountpoint": "/dev/vdb"}
_TEXT: Final = "written by os-brick"
_CONTENT: Final = noise(8 * 1024**2)


async def connected(daemon: Running, folder: Path) -> Any:
    """Attach a volume with an image by os-brick, write to it, detach it; return what Nova got."""
    (daemon.images / "disk").write_bytes(_CONTENT)
    volume = await made(daemon, "volume", size=1, imageRef="disk")
    body = {"attachment": {"volume_uuid": volume, "instance_uuid": _SERVER, "connector": _HOST}}
    answer = await ask(daemon, "POST", "attachments", body, headers=OF_NOVA)
    assert answer.status == 200, answer.body
    attachment = answer.json["attachment"]
    told = {"connection": attachment["connection_info"], "length": len(_CONTENT), "text": _TEXT}
    found = await deferToThread(brick, folder, told)
    assert found == {"digest": hashlib.sha256(_CONTENT).hexdigest(), "text": _TEXT}
    path = f"attachments/{attachment['id']}"
    assert (await ask(daemon, "POST", f"{path}/action", {"os-complete": None})).status == 204
    # Later answers have no key.
    later = (await ask(daemon, "GET", path)).json["attachment"]["connection_info"]
    assert later == {name: each for name, each in told["connection"].items() if name != "keyring"}
    # The older call tells the same.
    by_hand = await ask(
        daemon,
        "POST",
        f"volumes/{volume}/action",
        {"os-initialize_connection": {"connector": _HOST}},
        headers=OF_NOVA,
    )
    nested = by_hand.json["connection_info"]
    assert {
        **nested["data"],
        "driver_volume_type": nested["driver_volume_type"],
        "attachment_id": attachment["id"],
    } == told["connection"]
    assert (await ask(daemon, "DELETE", path, headers=OF_NOVA)).json == {"attachments": []}
    assert (await ask(daemon, "DELETE", f"volumes/{volume}")).status == 202
    return told["connection"]


def brick(folder: Path, told: object) -> Any:
    """Run os-brick in a process with its own packages and Ceph's modules."""
    modules = folder / "modules"
    modules.mkdir()
    for name in _CEPH:
        for found in _DEBIAN.glob(f"{name}.*.so"):
            (modules / found.name).symlink_to(found)
    done = subprocess.run(
        [ROOT / ".venv-clients/bin/python", "-W", "ignore", "-m", "tests.clients.brick"],
        input=json.dumps(told),
        env={"PYTHONPATH": f"{modules}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@ensureDeferred
async def test_a_host_opens_an_image_of_ceph(tmp_path: Path, ceph_cluster: Cluster) -> None:
    table = ceph_cluster.table("cache_gib = 0\nshare_keyring = true")
    daemon = Running(tmp_path, first=table, identity=PEOPLE)
    try:
        told = await connected(daemon, tmp_path)
    finally:
        await daemon.stop()
    assert told["driver_volume_type"] == "rbd"
    assert told["hosts"] == ["127.0.0.1"]
    assert told["ports"] == [ceph_cluster.monitor.strip("[]").rpartition(":")[2]]
    assert told["secret_uuid"] == ceph_cluster.command("fsid")["fsid"]
    assert (told["auth_username"], told["access_mode"]) == ("bootvol", "rw")
    assert told["keyring"].startswith("[client.bootvol]\n\tkey = ")


@ensureDeferred
async def test_a_host_opens_a_file_of_its_own(tmp_path: Path) -> None:
    daemon = Running(tmp_path, identity=PEOPLE)
    try:
        told = await connected(daemon, tmp_path)
    finally:
        await daemon.stop()
    assert told["driver_volume_type"] == "local"
    assert Path(told["device_path"]).parent == tmp_path / "volumes"
