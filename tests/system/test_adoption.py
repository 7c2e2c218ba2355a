"""The way from Cinder to bootvol: docs/adoption.md with today's client, and kills at any moment."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from uuid import uuid4

import attrs
import pytest

from bootvol.model import GIB
from bootvol.testing.backends import noise
from bootvol_plugins.file_store import STORE
from tests.ceph import Cluster
from tests.daemons import TENANT
from tests.people import PASSWORD, PEOPLE
from tests.processes import Process, process
from tests.system.test_clients import ROOT, V3
from tests.waiting import LONG_LIMIT

MIB = 1024 * 1024
CONTENT, LATER = noise(9 * MIB), noise(MIB, 1)
#: The commands of the document.
WALK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
DISKS, KILLS = 10, 8


def shell(daemon: Process, script: str, **variables: str) -> str:
    """Run a script of commands ``openstack`` as an administrator; return its output."""
    told = {name: value.format(url=daemon.url) for name, value in V3.items()}
    path = f"{ROOT / '.venv-clients/bin'}:{os.environ['PATH']}"
    user = {"OS_USERNAME": "ann", "OS_PASSWORD": PASSWORD, "HOME": str(daemon.folder)}
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        env={"PATH": path, "LC_ALL": "C.UTF-8", **user, **told, **variables},
        capture_output=True,
        text=True,
        timeout=LONG_LIMIT,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def test_the_walk_of_the_document(tmp_path: Path, ceph_cluster: Cluster) -> None:
    """A volume of Cinder with a snapshot: the bytes stay where they are, and all works."""
    volume, snapshot = str(uuid4()), str(uuid4())
    rbd = ceph_cluster.bindings.rbd
    with ceph_cluster.pool() as pool:
        rbd.RBD().create(pool, f"volume-{volume}", 2 * GIB, old_format=False)
    with ceph_cluster.image(f"volume-{volume}") as image:
        image.write(CONTENT, GIB)
        image.create_snap(f"snapshot-{snapshot}")
        image.protect_snap(f"snapshot-{snapshot}")
        image.write(LATER, GIB)
        data = f"rbd_data.{image.id()}"
    before = _objects(ceph_cluster)
    (document,) = WALK.findall((ROOT / "docs/adoption.md").read_text())
    table = ceph_cluster.table("cache_gib = 0")
    with process(tmp_path, first=table, identity=PEOPLE) as daemon:
        shown = shell(daemon, document, VOLUME=volume, SNAPSHOT=snapshot)
        assert f"volume-{volume}" in shown
        assert re.search(r"\| web +\| available \| +2 \|", shown), shown
        # Not one object with data is new.
        after = _objects(ceph_cluster)
        assert {each for each in after - before if "_data." in each} == set()
        assert {each for each in before if data in each} <= after
        (name,) = [each for each in ceph_cluster.images() if each.startswith("volume-")]
        (hidden,) = [each for each in ceph_cluster.images() if each.startswith("snapshot-")]
        for image_name, content in ((name, LATER + CONTENT[len(LATER) :]), (hidden, CONTENT)):
            with ceph_cluster.image(image_name) as image:
                assert image.size() == 2 * GIB
                assert image.read(GIB, len(content)) == content
                assert not any(image.read(0, MIB))
        shell(
            daemon,
            """
            available() { until openstack volume $1 show $2 -f value -c status | grep -q avail
                          do sleep 1; done; }
            gone() { while openstack volume $1 show $2; do sleep 1; done >&2; }
            openstack volume snapshot create --volume web after
            available snapshot after
            openstack volume create --snapshot before copy
            available "" copy
            openstack volume snapshot delete before after
            gone snapshot before
            gone snapshot after
            openstack volume delete --remote web
            gone "" web
            openstack volume delete copy
            gone "" copy
            """,
        )
        (left,) = ceph_cluster.images()
        assert re.fullmatch("volume-[0-9a-f-]{36}", left)
        with ceph_cluster.image(left) as image:
            assert f"rbd_data.{image.id()}" == data
            assert image.read(GIB, len(LATER)) == LATER


def _objects(cluster: Cluster) -> set[str]:
    with cluster.pool() as pool:
        return {each.key for each in pool.list_objects()}


@attrs.frozen
class Store:
    """A store with disks.

    :ivar host: the backend in Cinder's form, without the pool.
    :ivar table: TOML of the backend; empty for the usual one.
    :ivar names: returns the names of the disks.
    :ivar disks: returns an unchanging mark of each disk, by its name; while no daemon changes them.
    """

    host: str
    table: str
    names: Callable[[], list[str]]
    disks: Callable[[], dict[str, object]]


@pytest.fixture(params=["file", "rbd"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store with disks of Cinder."""
    if request.param == "file":
        folder = tmp_path / "volumes"
        folder.mkdir(mode=0o700)
        for number in range(DISKS):
            (folder / f"volume-{uuid4()}").write_bytes(noise(MIB, number))

        def files() -> dict[str, object]:
            return {each: _begin(folder / each) for each in names()}

        def names() -> list[str]:
            return [each.name for each in folder.iterdir() if each.name != STORE]

        return Store("here@local", "", names, files)
    cluster: Cluster = request.getfixturevalue("ceph_cluster")
    for _ in range(DISKS):
        cluster.create(f"volume-{uuid4()}", GIB + 1)

    def images() -> dict[str, object]:
        found: dict[str, object] = {}
        for name in cluster.images():
            with cluster.image(name) as image:
                found[name] = image.id()
        return found

    return Store("bootvol@ceph", cluster.table(), cluster.images, images)


def _begin(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MIB)


def test_killed_among_changes_of_hands(tmp_path: Path, store: Store) -> None:
    """Each disk has one name after all, and no row is wrong.  A failure prints the seed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    marks = sorted(map(str, store.disks().values()))
    assert len(set(marks)) == DISKS
    state = 'url = "sqlite:///bootvol.db"\ndirectory = "."\nhost = "here"'
    daemon = Process(tmp_path, "[quota]\nvolumes = 100", first=store.table, state=state)
    try:
        for _ in range(KILLS):
            for _ in range(chance.randint(1, 4)):
                _change(daemon, store, chance)
            time.sleep(chance.uniform(0, 0.3))
            daemon.stop(signal.SIGKILL)
            daemon.start()
        assert set(daemon.until_settled()) <= {"available", "error"}
        _check(daemon, store, marks)
        for each in _v3(daemon, "GET", "volumes/detail")["volumes"]:
            _v3(daemon, "POST", f"volumes/{each['id']}/action", {"os-unmanage": None})
        assert set(daemon.until_settled()) == set()
        assert sorted(map(str, store.disks().values())) == marks
        listed = _v3(daemon, "GET", f"manageable_volumes?host={store.host}")["manageable-volumes"]
        assert [each["safe_to_manage"] for each in listed] == [True] * DISKS
    finally:
        daemon.stop()


def _check(daemon: Process, store: Store, marks: list[str]) -> None:
    """Check that each disk has one name, and that each good volume has a disk."""
    assert sorted(map(str, store.disks().values())) == marks
    volumes = _v3(daemon, "GET", "volumes/detail")["volumes"]
    listed = _v3(daemon, "GET", f"manageable_volumes/detail?host={store.host}")
    ours = {each["cinder_id"] for each in listed["manageable-volumes"] if each["cinder_id"]}
    # A volume fails if another request has taken the disk first.
    assert ours == {each["id"] for each in volumes if each["status"] == "available"}
    assert {each["size"] for each in volumes if each["status"] == "error"} <= {0}


def _change(daemon: Process, store: Store, chance: random.Random) -> None:
    """Ask for a random change; a refusal is a valid answer, too."""
    volumes = _v3(daemon, "GET", "volumes/detail")["volumes"]
    places = [each for each in store.names() if re.fullmatch("volume-[0-9a-f-]{36}", each)]
    given_up = [each["id"] for each in volumes if each["status"] in ("available", "error")]
    failed = [each["id"] for each in volumes if each["status"] in ("creating", "error")]
    asked: list[tuple[str, str, object]] = []
    if places:
        ref = {"host": store.host, "ref": {"source-name": chance.choice(places)}}
        asked += 3 * [("POST", "os-volume-manage", {"volume": ref})]
    if given_up:
        path = f"volumes/{chance.choice(given_up)}/action"
        asked.append(("POST", path, {"os-unmanage": None}))
    if failed:
        # While a disk is taken over, a deletion gives the disk back.
        asked.append(("DELETE", f"volumes/{chance.choice(failed)}", None))
    if not asked:
        return
    method, path, body = chance.choice(asked)
    if method == "DELETE":
        shown = _v3(daemon, "GET", path)["volume"]
        # By now the volume may be whole: then a deletion would delete the disk, too.
        if shown["status"] != "error":
            return
    try:
        _v3(daemon, method, path, body)
    except HTTPError as answer:
        refused = answer.code
        answer.close()
    else:
        return
    assert refused in {400, 404}, (method, path)


def _v3(daemon: Process, method: str, path: str, body: object = None) -> Any:
    """Send a request of an administrator to the Block Storage API; return the answer's JSON."""
    request = urllib.request.Request(
        f"{daemon.url}/volume/v3/{TENANT}/{path}",
        None if body is None else json.dumps(body).encode(),
        {
            "X-Auth-Token": "root",
            "Content-Type": "application/json",
            "OpenStack-API-Version": "volume 3.8",
        },
        method=method,
    )
    with urllib.request.urlopen(request, timeout=LONG_LIMIT) as response:
        content = response.read()
    return json.loads(content) if content else None
