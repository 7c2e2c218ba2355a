"""Odd answers of Glance, which a new Glance does not give; and the turns of tenants."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from bootvol.errors import BootvolError, ImageNotFound, ImageUnusable, SourceFailed
from bootvol.fair_share import Paced
from bootvol.model import LONGEST_PROPERTIES, Caller, Digest
from bootvol_plugins.glance import source as module
from bootvol_plugins.glance.api import Glance
from bootvol_plugins.glance.images import described, is_id, usable
from bootvol_plugins.glance.source import GlanceSource
from tests.reactors import as_reactor
from tests.unit.test_channels import turn

ID: Final = "b2173dd3-7ad6-4362-baa6-a68bce3565cb"
#: An image of Glance 33, as its API shows it.
SHOWN: Final[dict[str, Any]] = {
    "id": ID,
    "name": "disk",
    "status": "active",
    "disk_format": "qcow2",
    "container_format": "bare",
    "visibility": "private",
    "size": 1000,
    "virtual_size": 5000,
    "min_disk": 0,
    "checksum": "A" * 32,
    "os_hash_algo": "sha512",
    "os_hash_value": "b" * 128,
    "tags": [],
    "hw_disk_bus": "virtio",
}


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ({}, Digest("sha512", "b" * 128)),
        ({"os_hash_algo": "sha256", "os_hash_value": "C" * 64}, Digest("sha256", "c" * 64)),
        ({"os_hash_algo": None, "os_hash_value": None}, Digest("md5", "a" * 32)),
        # Digests of unknown algorithms, and values other than digests.
        ({"os_hash_algo": "sha999"}, Digest("md5", "a" * 32)),
        ({"os_hash_algo": "shake_128", "os_hash_value": "c" * 64}, Digest("md5", "a" * 32)),
        ({"os_hash_value": "b" * 127 + "x"}, Digest("md5", "a" * 32)),
        ({"os_hash_value": "b" * 64, "checksum": None}, None),
    ],
)
def test_the_best_digest_that_is_stated(says: dict[str, Any], expected: Digest | None) -> None:
    image = usable(described({**SHOWN, **says}), "glance")
    assert image.digest == expected
    assert (image.validator is None) is (expected is None)


def test_an_image_without_a_name_is_called_by_its_id() -> None:
    image = usable(described({**SHOWN, "name": None}), "glance")
    assert (image.name, image.disk_bytes) == (ID, 5000)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("deleted", ImageNotFound),
        ("pending_delete", ImageNotFound),
        ("killed", ImageUnusable),
        ("of a later version", ImageUnusable),
    ],
)
def test_statuses_that_only_administrators_see(status: str, error: type[BootvolError]) -> None:
    with pytest.raises(error):
        usable(described({**SHOWN, "status": status}), "glance")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"id": ID},
        {**SHOWN, "id": "../x"},
        {**SHOWN, "size": -1},
        {**SHOWN, "size": "x"},
    ],
)
def test_what_is_no_image(answer: object) -> None:
    with pytest.raises(SourceFailed):
        described(answer)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ({}, None),
        ({"direct_url": "file:///var/lib/glance/images/x"}, None),
        ({"direct_url": "rbd://a/images/b/snap"}, "rbd://a/images/b/snap"),
        (
            {"locations": [{"url": "file:///x", "metadata": {}}, {"url": "rbd://a/images/b/snap"}]},
            "rbd://a/images/b/snap",
        ),
    ],
)
def test_where_in_ceph_it_lies(says: dict[str, Any], expected: str | None) -> None:
    assert described({**SHOWN, **says}).in_ceph == expected


@pytest.mark.parametrize("text", ["", ID[:-1], ID + "0", f"{ID}\n", ID.replace("b", "g"), f"/{ID}"])
def test_what_no_id_looks_like(text: str) -> None:
    assert is_id(ID)
    assert is_id(ID.upper())
    assert not is_id(text)


class Recording:
    """A client without a server.

    :ivar tokens: the tokens of the requests.
    """

    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def request(self, _method: str, _url: Any, _name: str, headers: Any) -> Any:
        """Note a request."""
        self.tokens += headers.getRawHeaders("X-Auth-Token")
        raise SourceFailed


def test_requests_to_glance_begin_one_a_turn_and_tenants_take_turns() -> None:
    """A tenant may have images searched for many times at once.

    Break: `plugins/bootvol_plugins/glance/api.py`: `await self.pace.turn(asker)` -> `pass`.
    Break: `plugins/bootvol_plugins/glance/api.py`: `self.pace.turn(asker)` -> `self.pace.turn("")`.
    Break: `plugins/bootvol_plugins/glance/source.py`: `self._glance.get_json(caller.tenant, token,
    ["images", reference])` -> `self._glance.get_json("", token, ["images", reference])`.
    """
    clock, client = Clock(), Recording()
    sent: Any = client
    glance = Glance(["http://glance"], sent, as_reactor(clock), 1)
    keystone: Any = None
    source = GlanceSource("glance", glance, keystone, as_reactor(clock), 1)
    for name in "aaaab":
        asked = Deferred.fromCoroutine(source.find(Caller(name, name, token=name), ID))
        asked.addErrback(lambda failure: failure.trap(SourceFailed))
    for count in range(1, 6):
        assert len(client.tokens) == count
        turn(clock)
    assert client.tokens.index("b") <= 2
    assert len(client.tokens) == 5


class Listing:
    """A Glance with one long page of images for everybody, without a server."""

    def __init__(self, clock: Clock) -> None:
        self.pace = Paced(clock)

    async def get_json(self, *_: object) -> tuple[int, object]:
        """Return the page."""
        return 200, {"images": [SHOWN] * 1000}


def test_a_long_list_is_read_in_pieces_and_tenants_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long the lists of a tenant are, another tenant waits for little of them.

    Break: `plugins/bootvol_plugins/glance/source.py`: `await self._glance.pace.turn(caller.tenant)`
    -> `pass`.
    Break: `plugins/bootvol_plugins/glance/source.py`: `pace.turn(caller.tenant)` ->
    `pace.turn("")`.
    """
    clock, read, validate = Clock(), Counter[str](), described

    def counted(shown: Any) -> Any:
        read["images"] += 1
        return validate(shown)

    monkeypatch.setattr(module, "described", counted)
    glance: Any = Listing(clock)
    keystone: Any = None
    source = GlanceSource("glance", glance, keystone, as_reactor(clock), 1)
    asked = [
        Deferred.fromCoroutine(source.images(Caller(name, name, token=name))) for name in "aaaab"
    ]
    turns = 0
    while not all(each.called for each in asked):
        before = read["images"]
        turn(clock)
        assert read["images"] - before <= 50
        turns += 1
        if asked[-1].called and not any(each.called for each in asked[:-1]):
            assert turns <= 50, "the other tenant had every second turn"
            break
    else:
        raise AssertionError("the other tenant waited for a list of the first")


def test_properties_are_kept_for_the_volumes_of_an_image() -> None:
    answer = {
        "id": "c70aaf87-110f-49bc-8f3f-42901f5284d7",
        "status": "active",
        "disk_format": "raw",
        "container_format": "bare",
        "checksum": "0" * 32,
        "min_ram": 64,
        "os_distro": "debian",
        "hw_disk_bus": "scsi",
        "owner": "x",
        "file": "/v2/images/x/file",
        "stores": "ceph",
        "os_glance_failed_import": "",
        "tags": ["x"],
        "protected": False,
        "vast": "x" * LONGEST_PROPERTIES,
        "last": "y",
    }
    assert usable(described(answer), "glance").properties == {
        "checksum": "0" * 32,
        "container_format": "bare",
        "min_ram": "64",
        "os_distro": "debian",
        "hw_disk_bus": "scsi",
        "last": "y",
    }
