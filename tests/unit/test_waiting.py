"""Waiting for a service during an outage."""

from __future__ import annotations

from typing import cast

import pytest

from bootvol.cli import waiting
from bootvol.cli.client import Client
from bootvol.cli.failures import FAILED, NOT_FOUND, UNREACHABLE, CommandFailed
from bootvol.cli.login import Access
from bootvol.cli.reservation import Reservation
from bootvol.cli.signals import Stop
from bootvol.cli.waiting import PATIENCE, patiently
from bootvol.jsons import JsonObject

AWAY = CommandFailed("away", UNREACHABLE)
BUSY = CommandFailed("busy", FAILED, 503)
LIMITED = CommandFailed("limited", FAILED, 413, 17.0)


class Time:
    """A clock that advances by sleeping alone."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds


def test_what_passes_is_waited_out(capsys: pytest.CaptureFixture[str]) -> None:
    time, answers = Time(), [AWAY, BUSY, LIMITED, None]

    def call() -> str:
        if (answer := answers.pop(0)) is not None:
            raise answer
        return "done"

    assert patiently(call, PATIENCE, time.clock, time.sleep) == "done"
    assert time.slept[-1] == 17.0
    told = capsys.readouterr().err
    assert told == "away; retrying for 300 seconds\n"


def test_a_wait_for_the_next_attempt_has_a_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_INTERVAL", 0.0)
    error = {"code": "source-failed", "message": "Away.", "remedy": "Wait.", "retryable": True}
    import_ = {"bytesDone": 0, "bytesTotal": None, "position": None}
    phases = [("queued", None), *[("retrying", error)] * 3, ("downloading", None), ("done", None)]

    class Service:
        """Answers with one phase after another."""

        def get(self, path: str, _key: str, _shape: object) -> JsonObject:
            """Return the import, or the finished volume."""
            if not path.endswith("/import"):
                return {"id": 1, "status": "available"}
            phase, error = phases.pop(0)
            return {**import_, "phase": phase, "error": error}

    volume = {"id": 1, "status": "creating"}
    assert waiting.created(cast("Client", Service()), volume, bootable=True)["id"] == 1
    told = capsys.readouterr().err
    assert told.count("retrying: Away. (source-failed)") == 1


@pytest.mark.parametrize("failure", [AWAY, BUSY, LIMITED])
def test_patience_ends(failure: CommandFailed) -> None:
    time = Time()

    def call() -> None:
        raise failure

    with pytest.raises(CommandFailed):
        patiently(call, PATIENCE, time.clock, time.sleep)
    assert time.now == PATIENCE


@pytest.mark.parametrize(
    "failure",
    [
        CommandFailed("no", NOT_FOUND, 404),
        CommandFailed("no", FAILED, 413),
        CommandFailed("no", FAILED, 500),
    ],
)
def test_what_is_refused_is_not_asked_again(failure: CommandFailed) -> None:
    time = Time()

    def call() -> None:
        raise failure

    with pytest.raises(CommandFailed):
        patiently(call, PATIENCE, time.clock, time.sleep)
    assert time.slept == []


class Detaching(Client):
    """A service that accepts every deletion."""

    def __init__(self) -> None:
        super().__init__(lambda: Access("", ""))

    def delete(self, path: str) -> None:
        """See :meth:`bootvol.cli.client.Client.delete`."""


def test_a_second_signal_during_a_detachment(capsys: pytest.CaptureFixture[str]) -> None:
    stop = Stop()
    stop.numbers = [2, 2]
    Reservation(Detaching(), "7", stop).__exit__(None, None, None)
    assert capsys.readouterr().err == "volume 7 is being detached\n"


class Pages(Client):
    """A service of lists: its answers by path."""

    def __init__(self, pages: dict[str, object]) -> None:
        super().__init__(lambda: Access("", ""))
        self._pages = pages

    def answer(self, path: str) -> JsonObject:
        """See :meth:`bootvol.cli.client.Client.answer`."""
        return cast("JsonObject", self._pages[path])


def rows(first: int, count: int) -> list[dict[str, int]]:
    """Return rows by their ids."""
    return [{"id": number} for number in range(first, first + count)]


def test_all_pages_of_a_list() -> None:
    link = {"rel": "next", "href": "http://elsewhere/x?limit=2&marker=2"}
    linked = Pages(
        {
            "v": {"volumes": rows(1, 2), "volumes_links": [{"rel": "self", "href": "x"}, link]},
            "v?limit=2&marker=2": {"volumes": rows(3, 1), "volumes_links": []},
        }
    )
    assert linked.all("v", "volumes") == rows(1, 3)
    counted = Pages(
        {
            "v": {"volumes": rows(1, 1000)},
            "v?limit=1000&offset=1000": {"volumes": rows(1001, 1000)},
            "v?limit=1000&offset=2000": {"volumes": rows(2001, 5)},
        }
    )
    assert counted.all("v", "volumes") == rows(1, 2005)
    whole = {"images": rows(1, 1500)}
    assert Pages({"i": whole, "i?limit=1000&offset=1500": whole}).all("i", "images") == rows(
        1, 1500
    )
    assert Pages({"v": {"volumes": []}}).all("v", "volumes") == []
