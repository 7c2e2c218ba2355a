"""Access to the images of a real Glance, and the meaning of Glance's statuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trustme
from pytest_twisted import ensureDeferred
from twisted.internet.ssl import KeyPair, PrivateCertificate
from twisted.web.resource import Resource
from twisted.web.server import Request

from bootvol.errors import (
    BootvolError,
    DigestMismatch,
    Forbidden,
    ImageNotFound,
    ImageNotReady,
    ImageUnusable,
    SourceFailed,
    SourceRefused,
    Unauthorized,
    UnsupportedFormat,
)
from bootvol.model import Caller, Digest
from bootvol.testing.backends import noise
from bootvol.testing.sources import read_all
from bootvol_plugins.glance import source as module
from bootvol_plugins.glance.source import GlanceSource, make
from tests.daemons import reactor
from tests.openstack.cloud import Cloud, blocking, port_of
from tests.proxies import front
from tests.servers import Server, free_port, serve

CONTENT: Final = noise(70_001)
#: Users of another identity service.
KNOWN_ELSEWHERE: Final = [Caller("ann", "a", token=each) for each in (None, "\udcff", "a\nb")]


@pytest.fixture
def source(cloud: Cloud) -> GlanceSource:
    """A source with the cloud's Glance."""
    return make("glance", cloud.options(), reactor)


@ensureDeferred
async def test_what_glance_says_of_an_image(cloud: Cloud, source: GlanceSource) -> None:
    caller = await blocking(cloud.caller, "ann")
    number = await blocking(
        cloud.glance.image, str(caller.token), CONTENT, name="Debian", min_disk=7
    )
    image = await source.find(caller, number)
    assert (image.id, image.name, image.format) == (number, "Debian", "raw")
    assert (image.size_bytes, image.disk_bytes, image.min_disk_gib) == (70_001, 70_001, 7)
    assert image.digest is not None
    assert image.digest.algorithm == "sha512"
    assert await source.images(caller)
    assert image in await source.images(caller)


@pytest.mark.parametrize(
    ("visibility", "status", "finds", "lists"),
    [
        ("private", None, False, False),
        ("public", None, True, True),
        ("community", None, True, False),
        ("shared", "accepted", True, True),
        # A caller who knows the id of a shared image may use the image.
        ("shared", "pending", True, False),
        ("shared", "rejected", True, False),
        ("shared", None, False, False),
    ],
)
@ensureDeferred
async def test_what_others_may_have(
    cloud: Cloud,
    source: GlanceSource,
    visibility: str,
    status: str | None,
    finds: bool,
    lists: bool,
) -> None:
    """A caller finds only images that Glance shows to the caller.

    Break: `plugins/bootvol_plugins/glance/source.py`: `code, answer = await
    self._glance.get_json(caller.tenant, token, ["images"], query)` -> `code, answer = await
    self._with_own_token(lambda own: self._glance.get_json("", own, ["images"], query))`.
    """
    owner = await blocking(cloud.token, "admin" if visibility == "public" else "ann")
    bob = await blocking(cloud.caller, "bob")
    number = await blocking(cloud.glance.image, owner, CONTENT, visibility=visibility)
    if status is not None:
        await blocking(cloud.glance.share, number, owner, bob.tenant, status, str(bob.token))
    assert (number in [each.id for each in await source.images(bob)]) is lists
    if finds:
        stream = await source.open(await source.find(bob, number))
        assert await read_all(stream, 65536) == CONTENT
    else:
        with pytest.raises(ImageNotFound):
            await source.find(bob, number)


@ensureDeferred
async def test_whoever_may_only_look_may_not_have(cloud: Cloud, source: GlanceSource) -> None:
    """A caller who sees an image in Glance, but may not read the data, gets no volume.

    Break: `plugins/bootvol_plugins/glance/source.py`: `elif code not in _WITHOUT:` -> `elif code
    not in {403, *_WITHOUT}:`.
    """
    number = await blocking(cloud.glance.image, await blocking(cloud.token, "ann"), CONTENT)
    eve = await blocking(cloud.caller, "eve")
    assert number in [each.id for each in await source.images(eve)]
    with pytest.raises(Forbidden):
        await source.find(eve, number)


def _queued(cloud: Cloud, token: str) -> str:
    return cloud.glance.image(token, None)


def _deactivated(cloud: Cloud, token: str) -> str:
    number = cloud.glance.image(token, CONTENT)
    cloud.glance.call("POST", f"/{number}/actions/deactivate", cloud.token("admin"))
    return number


def _deleted(cloud: Cloud, token: str) -> str:
    number = cloud.glance.image(token, CONTENT)
    cloud.glance.call("DELETE", f"/{number}", token)
    return number


def _in_three_parts(cloud: Cloud, token: str) -> str:
    return cloud.glance.image(token, CONTENT, container_format="ami", disk_format="ami")


def _packed(cloud: Cloud, token: str) -> str:
    return cloud.glance.image(token, CONTENT, container_format="ovf")


@pytest.mark.parametrize(
    ("make_image", "error", "message"),
    [
        (_queued, ImageNotReady, "is queued"),
        (_deactivated, ImageUnusable, "is deactivated"),
        (_deleted, ImageNotFound, "could not be found"),
        (_in_three_parts, UnsupportedFormat, "container format ami"),
        (_packed, UnsupportedFormat, "container format ovf"),
    ],
)
@ensureDeferred
async def test_what_no_volume_can_be_made_of(
    cloud: Cloud,
    source: GlanceSource,
    make_image: Callable[[Cloud, str], str],
    error: type[BootvolError],
    message: str,
) -> None:
    caller = await blocking(cloud.caller, "ann")
    number = await blocking(make_image, cloud, str(caller.token))
    with pytest.raises(error, match=message):
        await source.find(caller, number)
    assert number not in [each.id for each in await source.images(caller)]


@ensureDeferred
async def test_what_has_changed_since_it_was_found(cloud: Cloud, source: GlanceSource) -> None:
    ann = await blocking(cloud.caller, "ann")
    token = str(ann.token)
    number = await blocking(cloud.glance.image, token, CONTENT)
    image = await source.find(ann, number)
    for other in (
        attrs.evolve(image, digest=Digest("md5", "0" * 32)),
        attrs.evolve(image, size_bytes=1),
    ):
        with pytest.raises(DigestMismatch):
            await source.open(other)
    await blocking(
        cloud.glance.call,
        "POST",
        f"/{number}/actions/deactivate",
        await blocking(cloud.token, "admin"),
    )
    with pytest.raises(ImageUnusable):
        await source.open(image)
    await blocking(
        cloud.glance.call,
        "POST",
        f"/{number}/actions/reactivate",
        await blocking(cloud.token, "admin"),
    )
    await (await source.open(image)).close()
    cloud.glance.stored(number).unlink()
    with pytest.raises(SourceRefused, match="has lost its data"):
        await source.open(image)
    await blocking(cloud.glance.call, "DELETE", f"/{number}", token)
    with pytest.raises(ImageNotFound):
        await source.open(image)


@ensureDeferred
async def test_all_pages_are_listed(
    cloud: Cloud, source: GlanceSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await blocking(cloud.caller, "ann")
    made = {await blocking(cloud.glance.image, str(caller.token), b"x") for _ in range(5)}
    monkeypatch.setattr(module, "_PAGE", 2)
    listed = [each.id for each in await source.images(caller)]
    assert made <= set(listed)
    assert len(listed) == len(set(listed))
    monkeypatch.setattr(module, "_MOST", 4)
    assert len(await source.images(caller)) <= 4


@ensureDeferred
async def test_a_token_that_is_of_no_use(cloud: Cloud, source: GlanceSource) -> None:
    caller = await blocking(cloud.caller, "ann")
    number = await blocking(cloud.glance.image, str(caller.token), CONTENT)
    image = await source.find(caller, number)
    await blocking(cloud.keystone.revoke, str(caller.token))
    for useless in (caller, Caller("ann", "a", token="nonsense"), *KNOWN_ELSEWHERE):
        with pytest.raises(Unauthorized):
            await source.find(useless, number)
        assert await source.images(useless) == []
    assert await read_all(await source.open(image), 65536) == CONTENT


@ensureDeferred
async def test_a_new_token_of_its_own_when_the_old_one_has_ended(cloud: Cloud) -> None:
    caller = await blocking(cloud.caller, "ann")
    source = make("glance", cloud.options(), reactor)
    image = await source.find(
        caller, await blocking(cloud.glance.image, str(caller.token), CONTENT)
    )
    first = await source._keystone.own_token()
    assert await source._keystone.own_token() == first
    await blocking(cloud.keystone.revoke, first)
    assert await read_all(await source.open(image), 65536) == CONTENT
    assert await source._keystone.own_token() != first


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"password": "wrong"}, SourceFailed, "cannot log in"),
        ({"project": "nowhere"}, SourceFailed, "cannot log in"),
        # A user with access to public images only.
        (
            {"username": "images-bob", "project": "images-other"},
            ImageNotFound,
            "could not be found",
        ),
        ({"username": "images-eve", "project": "images"}, SourceRefused, "own user read image"),
    ],
)
@ensureDeferred
async def test_a_user_of_its_own_without_the_right(
    cloud: Cloud, options: dict[str, Any], error: type[BootvolError], message: str
) -> None:
    caller = await blocking(cloud.caller, "ann")
    source = make("glance", cloud.options(options), reactor)
    image = await source.find(
        caller, await blocking(cloud.glance.image, str(caller.token), CONTENT)
    )
    with pytest.raises(error, match=message):
        await source.open(image)


class Answering(Resource):
    """Gives one answer to all requests."""

    isLeaf = True

    def __init__(self, code: int, body: bytes = b"", **headers: str) -> None:
        super().__init__()
        self.code = code
        self.body = body
        self.sent = headers
        self.asked: list[bytes] = []

    def render_GET(self, request: Request) -> bytes:
        """Answer."""
        self.asked.append(request.uri)
        request.setResponseCode(self.code)
        for name, value in self.sent.items():
            request.setHeader(name.replace("_", "-"), value)
        return self.body


@pytest.fixture
def answering() -> Answering:
    """The resource in Glance's place."""
    return Answering(503)


@pytest.fixture
def other(answering: Answering) -> Iterator[Server]:
    """The running server."""
    with serve(answering) as server:
        yield server


@ensureDeferred
async def test_the_next_endpoint_is_asked_when_one_fails(
    cloud: Cloud, answering: Answering, other: Server
) -> None:
    caller = await blocking(cloud.caller, "ann")
    number = await blocking(cloud.glance.image, str(caller.token), CONTENT)
    endpoints = [f"http://127.0.0.1:{free_port()}", other.url, cloud.glance.url]
    source = make("glance", cloud.options(endpoints=endpoints), reactor)
    image = await source.find(caller, number)
    assert await read_all(await source.open(image), 65536) == CONTENT
    # The endpoint that answered stays the first.
    assert len(answering.asked) == 1
    # Broken and nonsensical answers count like a busy service.
    answering.code, answering.body = 200, b"<html>"
    source = make("glance", cloud.options(endpoints=endpoints), reactor)
    assert await source.find(caller, number) == image


@pytest.mark.parametrize(
    ("code", "body", "headers", "error", "pause"),
    [
        (503, b"", {"retry_after": "7"}, SourceFailed, 7.0),
        (429, b"", {"retry_after": "3"}, SourceFailed, 3.0),
        (500, b"", {}, SourceFailed, 0.0),
        (200, b"<html>", {}, SourceFailed, 0.0),
        (200, b"[" * 100_000, {}, SourceFailed, 0.0),
        (200, b'{"id": "x", "status": "active"}', {}, SourceFailed, 0.0),
        (200, b" " * (4 * 1024 * 1024 + 1), {}, SourceFailed, 0.0),
        (200, b"{}", {"content_encoding": "gzip"}, SourceFailed, 0.0),
        (404, b"", {}, ImageNotFound, None),
        (410, b"", {}, ImageNotFound, None),
        (403, b"", {}, Forbidden, None),
        (401, b"", {}, Unauthorized, None),
        (400, b"", {}, SourceRefused, None),
        (300, b"{}", {}, SourceRefused, None),
    ],
)
@ensureDeferred
async def test_whatever_answers(
    cloud: Cloud,
    answering: Answering,
    other: Server,
    code: int,
    body: bytes,
    headers: dict[str, str],
    error: type[BootvolError],
    pause: float | None,
) -> None:
    answering.code, answering.body, answering.sent = code, body, headers
    source = make("glance", cloud.options(endpoints=[other.url]), reactor)
    with pytest.raises(error) as caught:
        await source.find(
            Caller("ann", "a", token="secret"), "0" * 8 + "-0000" * 3 + "-" + "0" * 12
        )
    assert getattr(caught.value, "retry_after", None) == pause
    assert "secret" not in str(caught.value)


@ensureDeferred
async def test_no_token_goes_where_a_redirect_leads(
    cloud: Cloud, answering: Answering, other: Server
) -> None:
    """Redirects from Glance are not followed.

    Break: `plugins/bootvol_plugins/http/client.py`: `allow_redirects=False` ->
    `allow_redirects=True`.
    """
    answering.code, answering.sent = 302, {"location": f"{other.url}elsewhere"}
    source = make("glance", cloud.options(endpoints=[other.url]), reactor)
    with pytest.raises(SourceFailed, match="answers 302"):
        await source.images(Caller("ann", "a", token="secret"))
    assert len(answering.asked) == 1


@ensureDeferred
async def test_a_reference_that_is_no_id_is_not_asked_for(
    cloud: Cloud, answering: Answering, other: Server
) -> None:
    source = make("glance", cloud.options(endpoints=[other.url]), reactor)
    for reference in ("debian.raw", "../../v3", f"{other.url}v2/images/x", "0" * 36):
        with pytest.raises(ImageNotFound):
            await source.find(Caller("ann", "a", token="secret"), reference)
    assert answering.asked == []


@pytest.fixture
def authority() -> trustme.CA:
    """An authority known only here."""
    return trustme.CA()


@pytest.fixture
def secured(cloud: Cloud, authority: trustme.CA) -> Iterator[dict[str, Any]]:
    """A TLS proxy before both services; the value is the options for the proxy."""
    issued = authority.issue_cert("localhost")
    pem = issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes()
    certificate = PrivateCertificate.loadPEM(pem)
    assert isinstance(certificate.privateKey, KeyPair)
    with (
        front(port_of(cloud.glance.url), tls=certificate.options()) as images,
        front(port_of(cloud.keystone.url), tls=certificate.options()) as identity,
    ):
        yield {
            "endpoints": [f"https://localhost:{images.port}"],
            "keystone": {"url": f"https://localhost:{identity.port}"},
        }


@ensureDeferred
async def test_a_private_authority(
    cloud: Cloud, authority: trustme.CA, secured: dict[str, Any], tmp_path: Path
) -> None:
    caller = await blocking(cloud.caller, "ann")
    number = await blocking(cloud.glance.image, str(caller.token), CONTENT)
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    keystone = {**secured.pop("keystone"), "ca": ca}
    source = make("glance", cloud.options(keystone, **secured, ca=ca), reactor)
    image = await source.find(caller, number)
    assert await read_all(await source.open(image), 65536) == CONTENT
    distrustful = make("glance", cloud.options(keystone, **secured), reactor)
    with pytest.raises(SourceFailed, match="authority that is not trusted"):
        await distrustful.find(caller, number)
    del keystone["ca"]
    distrustful = make("glance", cloud.options(keystone, **secured, ca=ca), reactor)
    with pytest.raises(SourceFailed, match="cannot log in"):
        await distrustful.open(image)
