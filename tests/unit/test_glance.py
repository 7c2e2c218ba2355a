"""Odd answers of Glance: a new Glance gives none of them."""

from __future__ import annotations

from typing import Any, Final

import pytest

from bootvol.errors import BootvolError, ImageNotFound, ImageUnusable, SourceFailed
from bootvol.model import Digest
from bootvol_plugins.glance.images import described, is_id, usable

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
