"""Volumes of a real Glance's images, despite failures of connections, tokens and services."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.model import Caller
from bootvol.testing.backends import noise
from tests import images
from tests.daemons import OTHER_TENANT, TENANT, Running, pause
from tests.openstack.cloud import Cloud, blocking, port_of
from tests.openstack.identity import PASSWORD
from tests.proxies import Front, front

MIB: Final = 1024 * 1024
_SERIAL: Final = count()
#: Small sizes, so that little content shows every effect.
_IMPORTS: Final = """
[imports]
buffer_kib = 64
checkpoint_mib = 1
retries = 20
"""
_TOKEN: Final = """
[[identity.tokens]]
token = "{token}"
tenant = "{tenant}"
user = "{user}"
"""


def content() -> bytes:
    """Return the data of a unique image."""
    return noise(5 * MIB + 17) + str(next(_SERIAL)).encode()


@attrs.frozen
class Site:
    """A daemon with a cloud; callers use the cloud's own tokens.

    :ivar tokens: the tokens of ``ann`` and ``bob``.
    """

    cloud: Cloud
    running: Running
    tokens: dict[str, str]

    async def image(self, data: bytes | None, **more: Any) -> str:
        """Make an image of ann's; return the id."""
        number: str = await blocking(self.cloud.glance.image, self.tokens["ann"], data, **more)
        return number

    async def ask(self, reference: str, size: int = 1, who: str = "ann") -> Any:
        """Request a volume of an image; return the answer."""
        tenant = TENANT if who == "ann" else OTHER_TENANT
        wanted = {"volume": {"size": size, "imageRef": reference}}
        path = f"/v1.1/{tenant}/os-volumes"
        return await self.running.request("POST", path, wanted, self.tokens[who])

    async def create(self, reference: str) -> int:
        """Make a volume; return the id."""
        answer = await self.ask(reference)
        assert answer.status == 200, answer
        number: int = answer.json["volume"]["id"]
        return number

    async def ended(self, volume: int) -> tuple[str, str | None]:
        """Wait for the end of an import; return the volume's status and the error's code."""
        status = await self.running.until(volume, "available", "error")
        error = (await self.running.progress(volume))["error"]
        return status, error and error["code"]

    def holds(self, data: bytes) -> bool:
        """Return whether the only volume has ``data``, followed by zeros."""
        (file,) = self.running.files()
        with file.open("rb") as volume:
            return volume.read(len(data) + MIB) == data + bytes(MIB)


async def site_of(cloud: Cloud, folder: Path, endpoint: str) -> Site:
    """Start a daemon in a folder, with the cloud's tokens and an endpoint of Glance."""
    tokens = {user: await blocking(cloud.token, user) for user in ("ann", "bob")}
    callers = [
        # A caller who only reads volumes may be unknown to the cloud.
        _TOKEN.format(token="ann", tenant=TENANT, user="ann"),
        _TOKEN.format(token=tokens["ann"], tenant=TENANT, user="ann"),
        _TOKEN.format(token=tokens["bob"], tenant=OTHER_TENANT, user="bob"),
    ]
    more = _IMPORTS + cloud.table(endpoint)
    return Site(cloud, Running(folder, more, identity="".join(callers)), tokens)


@pytest_twisted.async_yield_fixture
async def site(cloud: Cloud, tmp_path: Path) -> AsyncIterator[Site]:
    """A daemon that reads directly from Glance."""
    made = await site_of(cloud, tmp_path, cloud.glance.url)
    yield made
    await made.running.stop()


@pytest.fixture
def between(cloud: Cloud) -> Iterator[Front]:
    """A proxy before Glance that breaks one connection after 2 MiB."""
    with front(port_of(cloud.glance.url), 2 * MIB, 1) as made:
        yield made


@pytest_twisted.async_yield_fixture
async def shaky(cloud: Cloud, between: Front, tmp_path: Path) -> AsyncIterator[Site]:
    """A daemon that reaches Glance only through the proxy."""
    made = await site_of(cloud, tmp_path, f"http://127.0.0.1:{between.port}")
    yield made
    await made.running.stop()


def _raw(_folder: Path) -> bytes:
    return content()


@pytest.mark.parametrize(
    ("make", "kind", "disk"),
    [(_raw, "raw", None), (images.qcow2, "qcow2", images.DISK)],
)
@ensureDeferred
async def test_a_volume_of_an_image(
    site: Site, tmp_path: Path, make: Callable[[Path], bytes], kind: str, disk: bytes | None
) -> None:
    data = make(tmp_path)
    number = await site.image(data, disk_format=kind)
    # As a bare id, and as a URL with the id at the end: bootvol sends nothing to the URL's host.
    for reference in (number, f"http://nowhere.invalid/v2/images/{number}"):
        volume = await site.create(reference)
        assert await site.ended(volume) == ("available", None)
        assert site.holds(disk or data)
        await site.running.call("DELETE", f"os-volumes/{volume}")
        await site.running.until(volume, "gone")


@ensureDeferred
async def test_what_is_refused_at_once(site: Site, tmp_path: Path) -> None:
    images.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "2.qcow2", "2G")
    # Even for this small image, Glance has found the size of the disk.
    thin = await site.image((tmp_path / "2.qcow2").read_bytes(), disk_format="qcow2")
    large = await site.image(b"x", min_disk=2)
    queued = await site.image(None)
    packed = await site.image(b"x", container_format="ovf")
    private = await site.image(content())
    for reference, who, status, message in (
        (thin, "ann", 400, "larger than volume size"),
        (large, "ann", 400, "larger than volume size"),
        (queued, "ann", 400, "is queued"),
        (packed, "ann", 400, "container format ovf"),
        (private, "bob", 404, "could not be found"),
        ("0" * 8 + "-0000" * 3 + "-" + "0" * 12, "ann", 404, "could not be found"),
    ):
        answer = await site.ask(reference, who=who)
        assert answer.status == status
        assert message in str(answer.json)
    # A token accepted by bootvol, but not by the cloud.
    answer = await site.running.call(
        "POST", "os-volumes", {"volume": {"size": 1, "imageRef": private}}
    )
    assert answer.status == 401


@ensureDeferred
async def test_data_that_is_not_what_glance_states(site: Site) -> None:
    data = content()
    number = await site.image(data)
    site.cloud.glance.stored(number).write_bytes(data[:-1] + b"!")
    volume = await site.create(number)
    assert await site.ended(volume) == ("error", "digest-mismatch")
    assert site.running.files() == []


@ensureDeferred
async def test_data_that_is_lost(site: Site) -> None:
    number = await site.image(content())
    site.cloud.glance.stored(number).unlink()
    volume = await site.create(number)
    assert await site.ended(volume) == ("error", "source-refused")
    assert site.running.files() == []


@ensureDeferred
async def test_what_has_come_is_not_fetched_again(shaky: Site, between: Front) -> None:
    data = content()
    number = await shaky.image(data)
    volume = await shaky.create(number)
    assert await shaky.ended(volume) == ("available", None)
    assert shaky.holds(data)
    assert between.times == 0
    asked = [head for head in between.said if b"/file " in head.partition(b"\r\n")[0]]
    ranges = [re.search(rb"(?i)range: bytes=(\d+)-", head) for head in asked]
    # One request to check ann's access, one that broke, and one for the rest.
    assert len(ranges) == 3
    assert ranges[1] is None
    assert ranges[2] is not None
    assert MIB < int(ranges[2][1]) <= 2 * MIB


@ensureDeferred
async def test_the_callers_token_ends_half_way(shaky: Site, between: Front, tmp_path: Path) -> None:
    data = content()
    number = await shaky.image(data)
    revoked: list[Any] = []
    token = shaky.tokens["ann"]
    between.broke = lambda: revoked.append(blocking(shaky.cloud.keystone.revoke, token))
    volume = await shaky.create(number)
    assert await shaky.ended(volume) == ("available", None)
    assert shaky.holds(data)
    await revoked[0]
    assert (await shaky.ask(number)).status == 401
    # No file ever had the token.
    await shaky.running.stop()
    for file in tmp_path.iterdir():
        if file.is_file() and file != shaky.running.config:
            assert token.encode() not in file.read_bytes()


@ensureDeferred
async def test_glance_goes_away_and_comes_back(shaky: Site, between: Front) -> None:
    glance = shaky.cloud.glance
    data = content()
    number = await shaky.image(data)
    between.broke = glance.kill
    volume = await shaky.create(number)
    try:
        while (await shaky.running.progress(volume))["phase"] != "retrying":
            await pause(0.05)
        answer = await shaky.ask(number)
        assert answer.status == 503
        assert "cannot be reached" in str(answer.json)
    finally:
        await blocking(glance.start)
    assert await shaky.ended(volume) == ("available", None)
    assert shaky.holds(data)


@ensureDeferred
async def test_callers_that_keystone_knows(cloud: Cloud, tmp_path: Path) -> None:
    access = cloud.options().keystone
    identity = f"""
[identity]
plugin = "keystone"
url = "{access.url}"
username = "{access.username}"
password = "{PASSWORD}"
project = "{access.project}"
"""
    more = _IMPORTS + cloud.table(cloud.glance.url)
    running = Running(tmp_path, more, identity=identity)
    try:
        ann, bob = await blocking(cloud.caller, "ann"), await blocking(cloud.caller, "bob")
        data = content()
        number = await blocking(cloud.glance.image, str(ann.token), data)
        wanted = {"volume": {"size": 1, "imageRef": number}}

        async def call(caller: Caller, method: str, path: str, body: Any = None) -> Any:
            path = f"/v1.1/{caller.tenant}/os-volumes{path}"
            return await running.request(method, path, body, caller.token)

        assert (await call(bob, "POST", "", wanted)).status == 404
        volume = (await call(ann, "POST", "", wanted)).json["volume"]
        while volume["status"] in ("creating", "downloading"):
            await pause(0.05)
            volume = (await call(ann, "GET", f"/{volume['id']}")).json["volume"]
        assert volume["status"] == "available"
        (file,) = running.files()
        with file.open("rb") as stored:
            assert stored.read(len(data)) == data
    finally:
        await running.stop()
