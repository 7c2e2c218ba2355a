"""Calls python-cinderclient in the order of Nova: attaches a volume to a server, and detaches it.

Meanwhile the host opens the volume by os-brick.

Standard input has the URL of the identity service, the project, the password of all users, the
volume, the server and the number of bytes to read. Standard output is a list: the volume's status
after each step, the digest of the bytes, or the refusal of a step.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from cinderclient import client, exceptions
from keystoneauth1 import service_token, session
from keystoneauth1.identity import v3
from tests.clients import brick

#: The description of a host, as os-brick makes it.
_CONNECTOR = {"host": "compute1", "ip": "10.0.0.11", "multipath": False, "mountpoint": "/dev/vdb"}


def main() -> None:
    """Attach and detach."""
    told = json.load(sys.stdin)
    user, service = log_in(told, "ann"), log_in(told, "nova")
    forwarded = service_token.ServiceTokenAuthWrapper(user, service)
    nova, alone = [
        client.Client("3.44", session=session.Session(auth=each)) for each in (forwarded, user)
    ]
    volume, seen = told["volume"], list[str]()

    def note() -> None:
        seen.append(nova.volumes.get(volume).status)

    made = nova.attachments.create(volume, None, told["server"])
    attachment = getattr(made, "id", None) or made["id"]
    note()
    updated = nova.attachments.update(attachment, _CONNECTOR)
    connection = getattr(updated, "connection_info", None) or updated["connection_info"]
    note()
    seen.append(brick.connected(connection, told["length"], "written by the host")["digest"])
    nova.attachments.complete(attachment)
    note()
    for step in (nova.volumes.begin_detaching, nova.volumes.roll_detaching):
        step(volume)
        note()
    nova.volumes.begin_detaching(volume)
    note()
    try:
        alone.attachments.delete(attachment)
    except exceptions.ClientException as error:
        seen.append(str(error).partition(" (Request-ID")[0])
    nova.attachments.delete(attachment)
    note()
    print(json.dumps(seen))


def log_in(told: dict[str, Any], name: str) -> Any:
    """Return the credentials of a user."""
    return v3.Password(
        told["url"],
        username=name,
        password=told["password"],
        user_domain_id="default",
        project_id=told["project"],
        project_domain_id="default",
    )


if __name__ == "__main__":
    main()
