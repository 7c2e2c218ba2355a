"""The table of transitions is total, and follows the specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootvol.lifecycle import (
    HELD,
    MAKING,
    MOVING,
    POWERING,
    REPLACING,
    TRANSITIONS,
    Event,
    IllegalTransition,
    Status,
    after,
)

#: Specification, section B2.
SPECIFIED = [
    (Status.CREATING, Event.DOWNLOAD, Status.DOWNLOADING),
    (Status.DOWNLOADING, Event.COMPLETE, Status.AVAILABLE),
    (Status.AVAILABLE, Event.DELETE, Status.DELETING),
    (Status.DELETING, Event.VANISH, Status.GONE),
]


@pytest.mark.parametrize(("status", "event", "expected"), SPECIFIED)
def test_the_specified_life(status: Status, event: Event, expected: Status) -> None:
    assert after(status, event) is expected


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("event", Event)
def test_each_pair_is_decided(status: Status, event: Event) -> None:
    if event in TRANSITIONS[status]:
        assert after(status, event) in Status
    else:
        with pytest.raises(IllegalTransition, match=f"{status} cannot {event}"):
            after(status, event)


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.GONE} - HELD))
def test_error_is_reached_from_anywhere(status: Status) -> None:
    assert after(status, Event.FAIL) is Status.ERROR


@pytest.mark.parametrize("status", sorted(HELD))
def test_what_a_server_may_have_is_neither_removed_nor_given_up(status: Status) -> None:
    assert not {Event.DELETE, Event.FAIL, Event.VANISH} & set(TRANSITIONS[status])


@pytest.mark.parametrize("status", Status)
def test_every_status_can_end(status: Status) -> None:
    reached = {status}
    for _ in Status:
        reached |= {target for each in reached for target in TRANSITIONS[each].values()}
    assert Status.GONE in reached


def test_unsettled_means_that_something_is_still_to_happen() -> None:
    # A settled status changes only on request, or if something breaks.
    power = {Event.STOP, Event.START, Event.REBOOT, Event.RESET}
    asked = {
        Event.DELETE,
        Event.GIVE_UP,
        Event.ATTACH,
        Event.DETACH,
        Event.EXTEND,
        Event.OFFER,
        Event.SETTLE,
        # Other systems tell where they have the volume.
        Event.RESERVE,
        Event.CONNECT,
        Event.ATTACHED,
        Event.UPLOAD,
        Event.RESTORE,
        Event.REVERT,
        Event.COPY_BACK,
        Event.RETYPE,
        Event.MIGRATE,
        Event.REIMAGE,
        *power,
    }
    unsettled = MAKING | MOVING | POWERING | REPLACING
    unsettled |= {Status.EXTENDING, Status.UPLOADING, Status.RESTORING, Status.DELETING}
    unsettled |= {Status.GIVING_UP}
    for status in set(Status) - unsettled:
        assert set(TRANSITIONS[status]) <= asked | {Event.FAIL, Event.DETACHED}
    for status in unsettled:
        assert set(TRANSITIONS[status]) - asked - {Event.FAIL}


@given(st.lists(st.sampled_from(Event)))
def test_no_history_leaves_the_table(events: list[Event]) -> None:
    status = Status.CREATING
    for event in events:
        try:
            status = after(status, event)
        except IllegalTransition:
            continue
        assert status in TRANSITIONS
