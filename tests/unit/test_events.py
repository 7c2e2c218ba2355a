"""Changes of statuses pass one function, and subscribers hear of each change after the commit."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier, get_ident

import pytest
from pytest_twisted import ensureDeferred
from sqlalchemy import Connection
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import capturedLogs

from bootvol.errors import ErrorReport
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Image, Volume
from bootvol.store import states, volumes
from bootvol.store.database import Database
from bootvol.store.events import StateChange
from tests.daemons import reactor
from tests.unit.conftest import on_server
from tests.waiting import LIMIT

SOURCE = Path(__file__).parents[2] / "src" / "bootvol"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
REPORT = ErrorReport("code", "message", False, "remedy")


@pytest.fixture
def running(database: Database) -> Iterator[Database]:
    """A database of either kind, ready for transactions."""
    database.start()
    yield database
    database.stop()


@pytest.fixture
def changes(running: Database) -> list[StateChange]:
    """The changes that a subscriber has heard of."""
    heard: list[StateChange] = []
    running.subscribe(heard.append)
    return heard


def add(db: Connection, name: str = "v", image: Image | None = None) -> int:
    """Add a volume."""
    volume = Volume(0, name, "t", "u", 1, Status.CREATING, NOW, "nova", "b", request_id="req-1")
    return volumes.add(db, volume, image).id


def fail(db: Connection, number: int) -> None:
    """Let a volume fail."""
    states.apply_event(db, Kind.VOLUME, number, Event.FAIL, REPORT)


@ensureDeferred
async def test_subscribers_hear_of_each_change(
    running: Database, changes: list[StateChange]
) -> None:
    image = Image("i", "s", "n")
    number = await running.write(add, image=image)
    await running.write(fail, number)
    await running.write(states.apply_event, Kind.VOLUME, number, Event.DELETE)
    await running.write_without_invalidation(states.apply_event, Kind.VOLUME, number, Event.VANISH)
    known = (Kind.VOLUME, number, "t", "req-1")
    assert changes == [
        StateChange(*known, None, None, Status.CREATING, image=image),
        StateChange(*known, Event.FAIL, Status.CREATING, Status.ERROR, REPORT),
        StateChange(*known, Event.DELETE, Status.ERROR, Status.DELETING),
        StateChange(*known, Event.VANISH, Status.DELETING, Status.GONE),
    ]


@ensureDeferred
async def test_subscribers_run_in_the_reactor_after_the_commit(running: Database) -> None:
    threads: list[int] = []
    reading: list[Deferred[Volume]] = []

    def heard(change: StateChange) -> None:
        threads.append(get_ident())
        found = running.read(volumes.get, change.tenant, change.number)
        reading.append(Deferred.fromCoroutine(found))

    running.subscribe(heard)
    await running.write(add)
    assert threads == [get_ident()]
    (volume,) = await gatherResults(reading)
    assert volume.status is Status.CREATING


@ensureDeferred
async def test_a_transaction_that_is_rolled_back_publishes_nothing(
    running: Database, changes: list[StateChange]
) -> None:
    def write(db: Connection) -> None:
        add(db)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await running.write(write)
    assert await running.read(volumes.listed, "t") == []
    await running.write(add, "later")
    assert [each.number for each in changes] == [
        each.id for each in await running.read(volumes.listed, "t")
    ]


@ensureDeferred
async def test_a_transaction_that_is_tried_again_publishes_once(
    new_postgresql: Callable[[], str],
) -> None:
    database = Database(on_server(new_postgresql()), reactor)
    database.upgrade()
    database.start()
    first, second = [await database.write(add, name) for name in "ab"]
    changes: list[StateChange] = []
    database.subscribe(changes.append)
    both = Barrier(2)
    tries: list[tuple[int, int]] = []

    def cross(db: Connection, one: int, other: int) -> None:
        fail(db, one)
        tries.append((one, other))
        if tries.count((one, other)) == 1:
            # Each of the two now waits for the row of the other.
            both.wait(LIMIT)
        fail(db, other)

    try:
        await gatherResults(
            [
                Deferred.fromCoroutine(database.write(cross, first, second)),
                Deferred.fromCoroutine(database.write(cross, second, first)),
            ]
        )
    finally:
        database.stop()
    # PostgreSQL may choose the second try of one of the two again.
    assert len(tries) >= 3, "one of the two collided"
    assert sorted(each.number for each in changes) == [first, first, second, second]


@ensureDeferred
async def test_the_change_of_a_cancelled_caller_is_published(
    running: Database, changes: list[StateChange]
) -> None:
    writing = Deferred.fromCoroutine(running.write(add))
    writing.cancel()
    with pytest.raises(CancelledError):
        await writing
    found = await running.read(volumes.listed, "t")
    assert [each.number for each in changes] == [each.id for each in found]


@ensureDeferred
async def test_a_subscriber_that_fails_disturbs_nobody(running: Database) -> None:
    def broken(_change: StateChange) -> None:
        raise RuntimeError("broken")

    heard: list[StateChange] = []
    running.subscribe(broken)
    running.subscribe(heard.append)
    with capturedLogs() as logged:
        await running.write(add)
    assert len(heard) == 1
    assert [each["log_format"] for each in logged if "log_failure" in each] == [
        "a subscriber fails to take {change}"
    ]


class Writers(ast.NodeVisitor):
    """Finds the code that may write a status: the calls of SQLAlchemy that name the column.

    :ivar found: the lines of such calls.
    """

    TABLES = frozenset({"volumes", "snapshots", "servers"})

    def __init__(self) -> None:
        self.found: list[int] = []

    def visit_Call(self, node: ast.Call) -> None:
        """See :class:`ast.NodeVisitor`."""
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name == "values" and (
            any(each.arg == "status" for each in node.keywords)
            or any(is_status(key) for each in node.args for key in keys(each))
        ):
            self.found.append(node.lineno)
        if name in ("insert", "delete_from", "delete") and any(
            getattr(each, "attr", getattr(each, "id", "")) in self.TABLES for each in node.args
        ):
            self.found.append(node.lineno)
        if name in ("text", "exec_driver_sql", "execute") and any(
            isinstance(each, ast.Constant)
            and isinstance(each.value, str)
            and "status" in each.value.lower()
            for each in node.args
        ):
            self.found.append(node.lineno)
        self.generic_visit(node)


def keys(node: ast.expr) -> list[ast.expr | None]:
    """Return the keys of a dictionary in the code."""
    return list(node.keys) if isinstance(node, ast.Dict) else []


def is_status(key: ast.expr | None) -> bool:
    """Tell whether a key of a dictionary names the column of the status."""
    if isinstance(key, ast.Constant):
        return key.value == "status"
    return isinstance(key, ast.Attribute) and key.attr == "status"


def writers(text: str) -> list[int]:
    """Return the lines of code that may write a status."""
    visitor = Writers()
    visitor.visit(ast.parse(text))
    return visitor.found


def test_no_other_code_writes_a_status() -> None:
    files = [path for path in SOURCE.rglob("*.py") if "migrations" not in path.parts]
    found = {str(path.relative_to(SOURCE)): writers(path.read_text()) for path in files}
    assert len(found.pop("store/states.py")) >= 1
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "code",
    [
        "update(volumes).values(status=status)",
        'update(volumes).values({"status": status})',
        "update(volumes).values({volumes.c.status: status})",
        "insert(schema.volumes).values(values)",
        "delete_from(servers).where(mine)",
        'db.execute(text("UPDATE volumes SET status = 1"))',
    ],
)
def test_the_search_finds_writers(code: str) -> None:
    assert set(writers(code)) == {1}
