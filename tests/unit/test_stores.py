"""Stores and hosts: which daemon has which rows."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, insert, select, update

from bootvol.errors import StoreElsewhere
from bootvol.store import daemons, schema, snapshots, stores, volumes
from bootvol.store.claims import ClaimRequest, here
from bootvol.store.stores import Store
from tests.unit.conftest import ENDED
from tests.unit.test_store import a_volume
from tests.unit.test_work_queue import a_snapshot


def add(db: Connection, host: str, name: str = "v") -> int:
    """Add a volume of a host; return its id."""
    volume = volumes.add(db, a_volume(name=name))
    db.execute(update(schema.volumes).where(schema.volumes.c.id == volume.id).values(host=host))
    return volume.id


def host_of(db: Connection, number: int) -> str:
    """Return the host of a volume."""
    return volumes.get(db, "t", number).host


def known(db: Connection) -> dict[str, str]:
    """Return the identity of backend b's store, by host."""
    return {row.host: row.identity for row in db.execute(select(schema.stores))}


def test_two_hosts_have_a_backend_of_one_name(db: Connection) -> None:
    for host in "AB":
        daemons.announce(db, f"d{host}", host)
        assert stores.settle(db, "b", host, True, f"store {host}") == f"store {host}"
    first, second = add(db, "A", "v1"), add(db, "B", "v2")
    for host in "AB":
        stores.settle(db, "b", host, True, f"store {host}")
        assert stores.remembered(db, host) == {"b": Store(host, f"store {host}")}
    assert (host_of(db, first), host_of(db, second)) == ("A", "B")


def test_the_store_of_a_host_changes_only_by_an_order(db: Connection) -> None:
    stores.settle(db, "b", "A", True, "old")
    assert stores.settle(db, "b", "A", True, "new") == "old"
    assert stores.forget(db, "b", "A")
    assert not stores.forget(db, "b", "A")
    assert stores.settle(db, "b", "A", True, "new") == "new"


def test_rows_from_before_get_the_host_that_has_their_store(db: Connection) -> None:
    """The migration leaves the host of all rows empty."""
    db.execute(insert(schema.stores).values(backend="b", host="", identity="one"))
    number, snapshot = add(db, ""), a_snapshot(db, volumes.get(db, "t", 1)).id
    db.execute(insert(schema.strays).values(backend="b", name="s", host=""))
    db.execute(insert(schema.strays).values(backend="c", name="t", host=""))
    # Another host, with another store, gets nothing.
    assert stores.settle(db, "b", "B", True, "two") == "one"
    assert host_of(db, number) == ""
    assert stores.settle(db, "b", "A", True, "one") == "one"
    assert host_of(db, number) == "A"
    assert snapshots.get(db, "t", snapshot).host == "A"
    hosts = {row.name: row.host for row in db.execute(select(schema.strays))}
    assert hosts == {"s": "A", "t": ""}
    assert known(db) == {"A": "one"}
    # Now the other host gets its own.
    assert stores.settle(db, "b", "B", True, "two") == "two"
    assert known(db) == {"A": "one", "B": "two"}
    assert host_of(db, number) == "A"


def test_a_store_of_two_hosts_must_be_declared(db: Connection) -> None:
    daemons.announce(db, "a", "A")
    stores.settle(db, "b", "A", True, "one")
    number = add(db, "A")
    if db.dialect.name == "postgresql":
        with pytest.raises(StoreElsewhere, match="shared = true"):
            stores.settle(db, "b", "B", True, "one")
        assert host_of(db, number) == "A"
    # The same store for all hosts.
    assert stores.settle(db, "b", "A", False, "one") == "one"
    assert stores.settle(db, "b", "B", False, "one") == "one"
    assert host_of(db, number) == ""
    assert known(db) == {"": "one"}
    assert stores.settle(db, "b", "B", False, "two") == "one"


def test_a_name_means_no_store_of_one_host_and_one_of_all(db: Connection) -> None:
    stores.settle(db, "b", "A", True, "one")
    with pytest.raises(StoreElsewhere, match="another name"):
        stores.settle(db, "b", "B", False, "two")
    assert stores.settle(db, "c", "B", False, "two") == "two"
    assert stores.settle(db, "c", "A", True, "one") == "two"


def test_a_host_that_is_away_loses_its_store_to_who_has_it(db: Connection) -> None:
    """A disk moves, a state directory is lost, or the operator names the host."""
    daemons.announce(db, "a", "A")
    stores.settle(db, "b", "A", True, "one")
    number = add(db, "A")
    db.execute(update(schema.daemons).values(lease_until=ENDED))
    assert not daemons.runs_on(db, "A")
    assert stores.settle(db, "b", "B", True, "one") == "one"
    assert host_of(db, number) == "B"
    assert known(db) == {"B": "one"}


@pytest.mark.parametrize("local", [True, False])
def test_a_backend_that_cannot_tell_its_store(db: Connection, local: bool) -> None:
    former, foreign = add(db, "" if local else "A", "v1"), add(db, "B", "v2")
    assert stores.settle(db, "b", "A", local, None) is None
    assert host_of(db, former) == ("A" if local else "")
    assert host_of(db, foreign) == "B"
    assert known(db) == {}


def test_daemons_are_known_with_their_hosts(db: Connection) -> None:
    daemons.announce(db, "a", "A")
    daemons.announce(db, "a", "renamed")
    assert daemons.runs_on(db, "renamed")
    assert not daemons.runs_on(db, "A")
    assert daemons.host_of(db, "a") == "renamed"
    assert daemons.host_of(db, "b") is None
    assert daemons.host_of(db, None) is None


def test_a_daemon_claims_the_work_of_its_host(db: Connection) -> None:
    for host in ("", "A", "B"):
        add(db, host, f"v{host}")
    request = ClaimRequest("A/1", "A", {"b"}, [], {}, False, "A")
    query = select(schema.volumes.c.name).where(here(schema.volumes))
    found = db.scalars(query, request.values())
    assert set(found) == {"v", "vA"}
