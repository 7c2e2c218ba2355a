"""A client of OpenStack with a Keystone and a whole daemon, found in Keystone's catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from keystoneauth1 import exceptions
from keystoneauth1.identity import v3
from keystoneauth1.session import Session

from tests.openstack.identity import PASSWORD, Keystone
from tests.openstack.people import People
from tests.processes import process


def test_keystoneauth(keystone: Keystone, tmp_path: Path) -> None:
    people = People.of(keystone)
    (tmp_path / "password").touch(mode=0o600)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    with process(tmp_path, identity=people.table(password="file:password")) as daemon:
        # A unique type, since all tests share the catalog.
        kind = f"volume-{uuid4().hex}"
        keystone.endpoint("bootvol", kind, f"{daemon.url}/v1.1/%(project_id)s")
        volumes = {"service_type": kind, "region_name": "RegionOne", "interface": "public"}

        def session(user: str, project: str | None) -> Session:
            ids: dict[str, Any] = {"user_id": people.users[user], "password": PASSWORD}
            if project is not None:
                ids["project_id"] = people.projects[project]
            return Session(v3.Password(f"{keystone.url}/v3", **ids))

        bob = session("bob", "demo")
        made = bob.post(
            "/os-volumes", json={"volume": {"size": 1}}, endpoint_filter=volumes
        ).json()["volume"]
        for user in ("bob", "eve", "ann"):
            listed = session(user, "demo").get("/os-volumes", endpoint_filter=volumes).json()
            assert [each["id"] for each in listed["volumes"]] == [made["id"]]
        with pytest.raises(exceptions.Forbidden):
            session("eve", "demo").delete(f"/os-volumes/{made['id']}", endpoint_filter=volumes)
        elsewhere = session("ann", "other").get("/os-volumes", endpoint_filter=volumes)
        assert elsewhere.json() == {"volumes": []}
        with pytest.raises(exceptions.Unauthorized) as caught:
            session("ann", None).get(f"{daemon.url}/v1.1/{people.projects['demo']}/os-volumes")
        assert caught.value.response is not None
        assert "This token is not for a project" in caught.value.response.text
        token = bob.get_token()
    log = daemon.log.read_text()
    assert f"/v1.1/{people.projects['demo']}/os-volumes" in log
    for secret in (PASSWORD, str(token)):
        assert secret not in log
    assert "Traceback" not in log
