"""The comparison of the Block Storage API v3 with the served calls: docs/api-compatibility.md.

``python -m tests.compatibility`` writes the document from the dialect's own declarations.  A test
compares the document with the declarations, and requires a reason for each call that is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from bootvol.api.cinder import absent
from bootvol.api.cinder.acting import Actions
from bootvol.api.cinder.actions import VOLUMES
from bootvol.api.cinder.dialect import CINDER
from bootvol.api.cinder.resets import SNAPSHOTS
from bootvol.api.cinder.type_access import TYPES
from bootvol.api.operations import Operation

ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = ROOT / "docs" / "api-compatibility.md"
_CALLS: Final = Path(__file__).parent / "golden" / "cinder-calls.txt"

_GROUPS: Final = "bootvol has no groups: make a snapshot of each volume."
_BACKUPS: Final = "bootvol has no backups: make snapshots, or upload volumes as images."
_ENCRYPTION: Final = (
    "Nothing is encrypted by bootvol: encrypt in the guest, or the backend's disks."
)
_REPLICAS: Final = "Backends have no replicas."
_BY_SERVICE: Final = "Disable the services of the host, or stop the daemon."
#: The reasons why calls are missing or refused, by the beginnings of the calls.
REASONS: Final[Mapping[str, str]] = {
    "volumes/{}/encryption/": _ENCRYPTION,
    "types/{}/encryption": _ENCRYPTION,
    "volumes/{}/action os-extend_volume_completion": (
        "bootvol asks no compute service during a growth, so no service has to answer."
    ),
    "volumes/{}/action os-migrate_volume_completion": (
        "Only Cinder's own copies to another host, with a second volume, need the call."
    ),
    "os-hosts/{}": _BY_SERVICE,
    "os-services/freeze": _REPLICAS,
    "os-services/thaw": _REPLICAS,
    "os-services/failover": _REPLICAS,
    "os-services/get-log": "The daemon's configuration has the level of the log.",
    "os-services/set-log": "The daemon's configuration has the level of the log.",
    "clusters": "Daemons share the work by the database, without clusters.",
    "backups": _BACKUPS,
    "groups": _GROUPS,
    "group_snapshots": _GROUPS,
    "group_types": _GROUPS,
    "consistencygroups": _GROUPS,
    "cgsnapshots": _GROUPS,
}


@attrs.frozen
class Call:
    """A call of the API.

    :ivar path: the path, with ``{}`` for names, and the action, if any.
    """

    section: str
    method: str
    path: str

    @property
    def reason(self) -> str | None:
        """The reason why the call is missing or refused; None for none."""
        fitting = [each for each in REASONS if self.path.startswith(each)]
        return REASONS[max(fitting, key=len)] if fitting else None


def calls() -> Iterator[Call]:
    """Yield the calls of the API, in the order of the document."""
    section = ""
    for line in _CALLS.read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif not line.startswith("#"):
            method, _, path = line.partition(" ")
            yield Call(section, method, path)


def served() -> Mapping[tuple[str, str], tuple[str, int]]:
    """Return the answer to each served call, and the first minor version with the call.

    The answer is ``yes``, ``empty`` for objects that do not exist, or ``refused``.
    """
    found: dict[tuple[str, str], tuple[str, int]] = {}
    for each in CINDER.operations:
        for path in each.paths:
            found[each.method, _plain(path)] = _answer(each), each.since
    acting: Mapping[str, Actions] = {"volumes": VOLUMES, "snapshots": SNAPSHOTS, "types": TYPES}
    for kind, actions in acting.items():
        for name, since in actions.since.items():
            found["POST", f"{kind}/{{}}/action {name}"] = "yes", since
    return found


def _plain(path: str) -> str:
    return re.sub("<[a-z_]+>", "{}", path)


def _answer(operation: Operation) -> str:
    # Some other calls are refused at times.
    path = _plain(operation.path)
    if 501 in operation.refusals and Call("", operation.method, path).reason is not None:
        return "refused"
    return "empty" if operation in absent.OPERATIONS else "yes"


def document() -> str:
    """Return the whole document."""
    lines = [_HEAD]
    section, answers = "", served()
    for call in calls():
        if call.section != section:
            section = call.section
            lines += ["", f"## {section}", "", "| call | from | bootvol | |", _RULE]
        answer, since = answers.get((call.method, call.path), ("no", None))
        reason = "" if answer == "yes" else call.reason or ""
        version = "" if since is None else f"3.{since}"
        path, _, action = call.path.partition(" ")
        shown = f"`{call.method} {path}`" + (f" `{action}`" if action else "")
        lines.append(f"| {shown} | {version} | {answer} | {reason} |")
    return "\n".join(lines) + "\n"


_RULE: Final = "| --- | --- | --- | --- |"
_HEAD: Final = """\
# Calls of the Block Storage API v3

The tables name the calls of Cinder's API v3, the first microversion, and bootvol's answer:

- `yes`: the call works, see [block-storage.md](block-storage.md).
- `empty`: no such objects exist, so lists are empty, and an object is not found.
- `refused`: the answer is `501`, with the reason.
- `no`: the answer is `404`, or `400` for an action.

`python -m tests.compatibility` writes this document. A test compares both."""

if __name__ == "__main__":
    DOCUMENT.write_text(document())
