"""Facts about daemons and stores, for operators."""

from __future__ import annotations

from datetime import datetime

import attrs


@attrs.frozen
class Daemon:
    """A daemon that shares the database.

    :ivar runs: whether the daemon has said so lately.
    :ivar seen_at: time of the daemon's last word.
    """

    id: str
    host: str
    runs: bool
    seen_at: datetime


@attrs.frozen
class StoreUsage:
    """The usage of a store by one tenant."""

    tenant: str
    volumes: int
    volumes_gib: int
    snapshots: int
    snapshots_gib: int


@attrs.frozen
class Place:
    """A backend's store, and the daemons that reach the store.

    :ivar host: the only host that reaches the store; empty if all hosts do.
    :ivar runs: whether a daemon that reaches the store runs.
    :ivar seen_at: time of the last word of such a daemon; None if there is none.
    :ivar here: whether this daemon has the backend.
    :ivar works: whether this daemon's backend may do work.
    """

    backend: str
    host: str
    runs: bool
    seen_at: datetime | None
    here: bool
    works: bool
