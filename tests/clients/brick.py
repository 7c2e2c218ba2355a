"""Connects to a volume by os-brick, as a host does; reads and writes there.

Standard input has the connection as the Block Storage API gives it to an attachment, the number of
bytes to read, and a text to write behind them. Standard output is the digest of the bytes, and the
text as read back. Nova takes the connection apart in the same way (nova/volume/cinder.py).
"""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from os_brick.initiator import connector

#: Beside the data, these members stand in the connection of an attachment.
_BESIDE = ("driver_volume_type", "attachment_id", "enforce_multipath")


def main() -> None:
    """Connect, read, write, and disconnect."""
    told = json.load(sys.stdin)
    print(json.dumps(connected(told["connection"], told["length"], told["text"])))


def connected(connection: dict[str, Any], length: int, text: str) -> dict[str, str]:
    """Connect to a volume, use the volume, and disconnect; return the results of :func:`use`."""
    data = {name: value for name, value in connection.items() if name not in _BESIDE}
    host = connector.InitiatorConnector.factory(connection["driver_volume_type"].upper(), "")
    found = host.connect_volume(data)
    try:
        with opened(found["path"]) as volume:
            return use(volume, length, text.encode())
    finally:
        host.disconnect_volume(data, found)


def opened(path: Any) -> Any:
    """Return the volume at a path; os-brick opens images of Ceph itself."""
    return Path(path).open("r+b", buffering=0) if isinstance(path, str) else closing(path)


def use(opened: IO[bytes], length: int, text: bytes) -> dict[str, str]:
    """Read the volume, and write a text to it; return the results."""
    digest = hashlib.sha256(opened.read(length)).hexdigest()
    opened.seek(length)
    opened.write(text)
    opened.flush()
    opened.seek(length)
    return {"digest": digest, "text": opened.read(len(text)).decode()}


if __name__ == "__main__":
    main()
