"""A real Glance with images in the volumes' own cluster: the volumes are clones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from pytest_twisted import ensureDeferred

from bootvol.model import GIB
from bootvol.testing.backends import noise
from tests.ceph import IMAGES, Cluster
from tests.daemons import TENANT, Running
from tests.images import MIB
from tests.openstack.cloud import Cloud, blocking
from tests.openstack.images import glance

CONTENT = noise(9 * MIB + 77)
_TOKEN = '[[identity.tokens]]\ntoken = "{token}"\ntenant = "{tenant}"\nuser = "ann"\n'


@pytest.fixture
def in_ceph(cloud: Cloud, ceph_cluster: Cluster) -> Iterator[Cloud]:
    """The cloud with another Glance."""
    with glance(cloud.keystone, ceph_cluster) as service:
        yield attrs.evolve(cloud, glance=service)


@ensureDeferred
async def test_a_volume_is_a_clone_of_the_image(
    in_ceph: Cloud, ceph_cluster: Cluster, tmp_path: Path
) -> None:
    token = await blocking(in_ceph.token, "ann")
    image = await blocking(in_ceph.glance.image, token, CONTENT)
    running = Running(
        tmp_path,
        in_ceph.table(in_ceph.glance.url),
        first=ceph_cluster.table("cache_gib = 0"),
        # A caller who only reads volumes may be unknown to the cloud.
        identity="".join(_TOKEN.format(token=each, tenant=TENANT) for each in ("ann", token)),
    )
    try:
        wanted = {"volume": {"size": 1, "imageRef": image}}
        answer = await running.call("POST", "os-volumes", wanted, token)
        number = answer.json["volume"]["id"]
        assert await running.until(number, "available", "error") == "available"
        await blocking(_is_a_clone, ceph_cluster, image)
        assert (await running.call("DELETE", f"os-volumes/{number}")).status == 202
        assert await running.until(number, "gone", "error") == "gone"
    finally:
        await running.stop()
    # The volume does not depend on the image.
    await blocking(in_ceph.glance.call, "DELETE", f"/{image}", token)


def _is_a_clone(cluster: Cluster, image: str) -> None:
    (name,) = cluster.images()
    with cluster.image(name) as volume:
        assert tuple(volume.parent_info()) == (IMAGES, image, "snap")
        assert volume.size() == GIB
        assert volume.read(0, len(CONTENT)) == CONTENT
        assert not any(volume.read(len(CONTENT), MIB))
