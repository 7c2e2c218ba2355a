"""The identity service ``embedded``: its refusals, its memory, and its cost."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from argon2 import PasswordHasher
from pydantic import ValidationError
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from bootvol import files, passwords, sparing
from bootvol.clocks import sleep
from bootvol.errors import (
    ConfigurationError,
    IdentityFailed,
    LoginFailed,
    TooManyLogins,
    Unauthorized,
)
from bootvol.interfaces import PluginContext
from bootvol.login import EarlierToken, Password, Session, Which
from bootvol.threads import Threads
from bootvol_plugins.embedded import revoked, throttle
from bootvol_plugins.embedded.identity import EmbeddedIdentity
from bootvol_plugins.embedded.known import MOST, MOST_OF_A_USER, Known
from bootvol_plugins.embedded.options import LONGEST_LIFE
from bootvol_plugins.embedded.throttle import Throttle
from bootvol_plugins.embedded.turns import Turns
from tests.daemons import TENANT
from tests.people import BOBS, PASSWORD, PASSWORD_HASH, PEOPLE, identity, options
from tests.reactors import as_reactor
from tests.waiting import until

DEMO = Which(name="demo")
OTHER = Which(name="other")
ANN = Password(Which(name="ann"), PASSWORD)

Make = Callable[..., EmbeddedIdentity]


@pytest.fixture
def clock() -> Clock:
    """The time of the service."""
    clock = Clock()
    clock.advance(1_700_000_000)
    return clock


@pytest.fixture
def make(clock: Clock, threads: Threads, tmp_path: Path) -> Make:
    """Return a function that makes the service, also again with another configuration."""
    context = PluginContext(as_reactor(clock), threads, "identity", clock.seconds)
    return lambda text=PEOPLE: identity(context, tmp_path, text)


async def log_in(service: EmbeddedIdentity, project: Which | None = DEMO) -> Session:
    """Log ann in."""
    return await service.login(ANN, project, "192.0.2.1")


# --- tokens --------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_token_ends(make: Make, clock: Clock) -> None:
    """A token, and a token made with it, end at the first token's time.

    Break: `plugins/bootvol_plugins/embedded/tokens.py`: `if now >= claims.expires:` -> `if not
    claims.expires:`.
    Break: `plugins/bootvol_plugins/embedded/identity.py`: `expires = earlier.expires` -> `expires =
    now + self._lifetime`.
    """
    service = make()
    session = await log_in(service)
    assert (session.expires_at - session.issued_at).total_seconds() == 12 * 3600
    clock.advance(12 * 3600 - 1)
    await service.authenticate(session.token)
    # A new token made from the old one does not last longer.
    later = await service.login(EarlierToken(session.token), OTHER, "192.0.2.1")
    clock.advance(1)
    for token in (session.token, later.token):
        with pytest.raises(Unauthorized):
            await service.authenticate(token)


@ensureDeferred
async def test_the_lifetime_is_a_setting(make: Make) -> None:
    short = PEOPLE.replace('"embedded"', '"embedded"\ntoken_hours = 0.5')
    session = await log_in(make(short))
    assert (session.expires_at - session.issued_at).total_seconds() == 1800


@ensureDeferred
async def test_a_restart_changes_nothing(make: Make) -> None:
    session = await log_in(make())
    assert await make().session(session.token) == session


#: What the operator takes away from ann.
TAKEN = pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ('name = "ann"\nid = "10"', 'name = "ann"\nid = "11"'),
        ('demo = ["admin", "member"], ', ""),
        (PASSWORD_HASH, passwords.hash_password(PASSWORD)),
    ],
    ids=["the user", "the role", "the password"],
)


@TAKEN
@ensureDeferred
async def test_what_is_taken_away_counts_at_once(make: Make, was: str, becomes: str) -> None:
    """A token is refused once its user, project or credential is gone.

    Break: `plugins/bootvol_plugins/embedded/identity.py`: `if user is None or claims.credential not
    in user.methods or claims` -> `if user is None or claims`.
    Break: `plugins/bootvol_plugins/embedded/identity.py`: `if claims.project is not None and
    claims.project not in user.roles:` -> `if claims.user is None:`.
    """
    assert was in PEOPLE
    token = (await log_in(make())).token
    changed = make(PEOPLE.replace(was, becomes))
    for call in (changed.authenticate, changed.session):
        with pytest.raises(Unauthorized):
            await call(token)


@TAKEN
@ensureDeferred
async def test_what_is_taken_away_during_a_log_in(
    make: Make, tmp_path: Path, was: str, becomes: str
) -> None:
    """A log-in is refused like any other, whose user changes during the verification."""
    service = make()
    running = Deferred.fromCoroutine(log_in(service))
    await service.reload(options(tmp_path, PEOPLE.replace(was, becomes)))
    assert not running.called
    with pytest.raises(LoginFailed):
        await running


@ensureDeferred
async def test_what_is_given_counts_at_once(make: Make) -> None:
    token = (await log_in(make(), OTHER)).token
    changed = make(
        PEOPLE.replace(
            'other = ["member"] }\n\n[[identity.users.a', 'other = ["x"] }\n\n[[identity.users.a'
        )
    )
    assert (await changed.authenticate(token)).roles == {"x"}


# --- the key -------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_nobody_elses(make: Make, tmp_path: Path) -> None:
    make()
    key = tmp_path / "identity" / "key"
    content = key.read_bytes()
    assert len(content) == 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    make()
    assert key.read_bytes() == content
    assert list(key.parent.iterdir()) == [key]


@ensureDeferred
async def test_a_key_from_a_file(make: Make, tmp_path: Path) -> None:
    text = PEOPLE.replace('"embedded"', '"embedded"\nkey_file = "mine"')
    with pytest.raises(ConfigurationError, match=r"mine: No such file"):
        make(text)
    (tmp_path / "mine").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match=r"identity\.key_file: .*chmod 600"):
        make(text)
    (tmp_path / "mine").chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"mine: a key has at least 32 bytes"):
        make(text)
    (tmp_path / "mine").write_bytes(os.urandom(32))
    service = make(text)
    token = (await log_in(service)).token
    await make(text).authenticate(token)
    await service.revoke((await log_in(service)).token)
    assert not (tmp_path / "identity" / "key").exists()
    with pytest.raises(Unauthorized):
        await make().authenticate(token)


# --- revocation ----------------------------------------------------------------------------------


@ensureDeferred
async def test_what_has_expired_is_forgotten(make: Make, clock: Clock, tmp_path: Path) -> None:
    service = make()
    await service.revoke((await log_in(service)).token)
    file = tmp_path / "identity" / "revoked"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    size = file.stat().st_size
    clock.advance(13 * 3600)
    await service.revoke((await log_in(service)).token)
    assert file.stat().st_size == size


@pytest.mark.parametrize("restarts", [False, True])
@ensureDeferred
async def test_a_clock_that_is_set_forward_and_back_forgets_no_revocation(
    clock: Clock, threads: Threads, tmp_path: Path, restarts: bool
) -> None:
    """Break: `plugins/bootvol_plugins/embedded/revoked.py`: `and end.steady <= steady` -> `and
    True`.
    """
    wrong = 0.0
    context = PluginContext(as_reactor(clock), threads, "identity", lambda: clock.seconds() + wrong)
    service = identity(context, tmp_path)
    token = (await log_in(service)).token
    await service.revoke(token)
    wrong = 365 * 24 * 3600.0
    if restarts:
        service = identity(context, tmp_path)
    # Each revocation forgets earlier ones.
    await service.revoke((await log_in(service)).token)
    wrong = 0.0
    with pytest.raises(Unauthorized):
        await service.authenticate(token)
    clock.advance(13 * 3600)
    await service.revoke((await log_in(service)).token)
    # The clock was a year ahead, so one of the three is kept for a year.
    assert len(json.loads((tmp_path / "identity" / "revoked").read_text())["10"]["tokens"]) == 2


@ensureDeferred
async def test_revocations_that_wait_share_one_write(clock: Clock, tmp_path: Path) -> None:
    held = Held()
    service = identity(PluginContext(as_reactor(clock), held, "identity", clock.seconds), tmp_path)  # type: ignore[arg-type]
    logging_in = Deferred.fromCoroutine(log_in(service, None))
    held.end()
    first = (await logging_in).token
    # The file of known users.
    held.end()
    made = [(await service.login(EarlierToken(first), DEMO, "192.0.2.1")).token for _ in range(9)]
    ended = [Deferred.fromCoroutine(service.revoke(token)) for token in made]
    writes = 0
    while held.calls:
        writes += 1
        held.end()
    for token, each in zip(made, ended, strict=True):
        await each
        with pytest.raises(Unauthorized):
            await service.authenticate(token)
    assert writes == 2


@ensureDeferred
async def test_nobody_fills_the_disk_and_nobody_keeps_a_stolen_token_by_that(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ending too many tokens of a user ends all of them; the next log-ins succeed.

    Break: `plugins/bootvol_plugins/embedded/revoked.py`: `if len(ended.tokens) > MOST:` -> `if not
    ended:`.
    Break: `plugins/bootvol_plugins/embedded/revoked.py`: `return claims.issued <= ended.until or
    any(` -> `return any(`.
    """
    monkeypatch.setattr(revoked, "MOST", 2)
    service = make()
    stolen = (await log_in(service)).token
    bob = await service.login(Password(Which(name="bob"), BOBS), OTHER, "192.0.2.1")
    for _ in range(2):
        await service.revoke((await log_in(service)).token)
    await service.authenticate(stolen)
    await service.revoke((await log_in(service)).token)
    # Within the same second, and after a restart.
    for each in (service, make()):
        with pytest.raises(Unauthorized):
            await each.authenticate(stolen)
        with pytest.raises(LoginFailed):
            await each.login(EarlierToken(stolen), DEMO, "192.0.2.1")
        await each.authenticate((await log_in(each)).token)
        await each.authenticate(bob.token)
    service = make()
    for _ in range(10):
        token = (await log_in(service)).token
        await service.revoke(token)
        with pytest.raises(Unauthorized):
            await service.authenticate(token)
    assert (tmp_path / "identity" / "revoked").stat().st_size < 300
    # The record is dropped when all tokens of that time have expired, however long they last.
    clock.advance(LONGEST_LIFE * 3600 + 1)
    await service.revoke((await log_in(service)).token)
    assert '"until": 0' in (tmp_path / "identity" / "revoked").read_text()


@pytest.mark.parametrize("restarts", [False, True])
@ensureDeferred
async def test_a_shorter_life_of_tokens_brings_no_revoked_token_back(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, restarts: bool
) -> None:
    """Break: `plugins/bootvol_plugins/embedded/revoked.py`: `_End(int(now) + _ALL_EXPIRED, steady
    + _ALL_EXPIRED)` -> `_End(int(now) + 3600, steady + 3600)`.
    """
    monkeypatch.setattr(revoked, "MOST", 2)
    service = make()
    stolen = (await log_in(service)).token
    short = PEOPLE.replace('"embedded"', '"embedded"\ntoken_hours = 1')
    if restarts:
        service = make(short)
    else:
        await service.reload(options(tmp_path, short))
    for _ in range(3):
        await service.revoke((await log_in(service)).token)
    clock.advance(2 * 3600)
    # Each revocation forgets those of expired tokens.
    await service.revoke((await log_in(service)).token)
    for each in (service, make()):
        with pytest.raises(Unauthorized):
            await each.authenticate(stolen)


@ensureDeferred
async def test_with_a_token_end_those_that_were_got_by_it(make: Make) -> None:
    """Ending a token ends the tokens made with it.

    Break: `plugins/bootvol_plugins/embedded/revoked.py`: `nonce in known for nonce in
    (claims.nonce, *claims.ancestors)` -> `nonce in known for nonce in (claims.nonce,)`.
    """
    service = make()
    first = (await log_in(service, None)).token

    async def go_on(token: str, project: Which = DEMO) -> str:
        return (await service.login(EarlierToken(token), project, "192.0.2.1")).token

    second, sibling = await go_on(first), await go_on(first, OTHER)
    third = await go_on(second, OTHER)
    await service.revoke(second)
    for token in (second, third):
        with pytest.raises(Unauthorized):
            await service.authenticate(token)
    await service.authenticate(sibling)
    await service.revoke(first)
    with pytest.raises(Unauthorized):
        await service.authenticate(sibling)


@ensureDeferred
async def test_tokens_are_not_got_by_one_another_without_end(make: Make) -> None:
    service = make()
    token = (await log_in(service)).token
    for _ in range(16):
        token = (await service.login(EarlierToken(token), DEMO, "192.0.2.1")).token
    await service.authenticate(token)
    with pytest.raises(LoginFailed):
        await service.login(EarlierToken(token), DEMO, "192.0.2.1")


@ensureDeferred
async def test_several_at_once_are_all_kept(make: Make) -> None:
    service = make()
    tokens = [(await log_in(service)).token for _ in range(5)]
    revoking = [Deferred.fromCoroutine(service.revoke(token)) for token in tokens]
    for each in revoking:
        await each
    again = make()
    for token in tokens:
        with pytest.raises(Unauthorized):
            await again.authenticate(token)


@ensureDeferred
async def test_a_disk_that_fails_is_told(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    service = make()
    token = (await log_in(service)).token
    monkeypatch.setattr(files, "replace", fail)
    with pytest.raises(IdentityFailed):
        await service.revoke(token)
    with pytest.raises(Unauthorized):
        await service.authenticate(token)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ann": 1}', '{"ann": {"x": "y"}}', "\xff"])
def test_a_broken_list_is_not_taken_for_an_empty_one(
    make: Make, tmp_path: Path, content: str
) -> None:
    make()
    (tmp_path / "identity" / "revoked").write_text(content, encoding="latin-1")
    with pytest.raises(ConfigurationError, match="revoked: cannot be read"):
        make()


# --- guessing ------------------------------------------------------------------------------------


def test_the_delays(clock: Clock) -> None:
    """Each failure beyond the free ones doubles the delay.

    Break: `plugins/bootvol_plugins/embedded/throttle.py`: `if wait > 0:` -> `if wait > 300:`.
    Break: `plugins/bootvol_plugins/embedded/throttle.py`: `2.0 ** min(beyond, 16)` -> `2.0`.
    """
    delays = []
    guesses = Throttle(clock.seconds)
    for _ in range(throttle.FREE + 12):
        guesses.check(b"k")
        guesses.failed(b"k")
        try:
            guesses.check(b"k")
        except TooManyLogins as error:
            delays.append(error.retry_after)
            clock.advance(error.retry_after)
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]
    guesses.failed(b"k")
    guesses.check(b"other")
    clock.advance(throttle.FORGIVEN)
    for _ in range(throttle.FREE - 1):
        guesses.failed(b"k")
    guesses.check(b"k")


def test_a_success_clears(clock: Clock) -> None:
    guesses = Throttle(clock.seconds)
    for _ in range(throttle.FREE - 1):
        guesses.failed(b"k")
    guesses.succeeded(b"k")
    guesses.failed(b"k")
    guesses.check(b"k")


@pytest.mark.parametrize("others", [1, 2, 30])
def test_failures_of_many_others_make_nobody_forgotten(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """A stranger who fails as many new users between the guesses has no more guesses.

    Break: `plugins/bootvol_plugins/embedded/throttle.py`: `return self._failures.pop(fewest)` ->
    `self._failures.pop(fewest)`.
    """
    monkeypatch.setattr(throttle, "MOST", 100)
    guesses = Throttle(clock.seconds, 100)
    for number in range(200):
        guesses.failed(b"%d" % (number // 2))
    tried = 0
    for number in range(1000):
        try:
            guesses.check(b"ann")
        except TooManyLogins:
            break
        guesses.failed(b"ann")
        tried += 1
        for other in range(others):
            guesses.failed(b"%d %d" % (number, other))
    assert tried <= 100
    # Others are not delayed for that.
    guesses.check(b"bob")


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The throttle drops forgiven failures first, and else the fewest."""
    monkeypatch.setattr(throttle, "MOST", 3)
    guesses = Throttle(clock.seconds)
    for _ in range(throttle.FREE):
        guesses.failed(b"first")
    for number in range(5):
        guesses.failed(b"%d" % number)
    with pytest.raises(TooManyLogins):
        guesses.check(b"first")
    clock.advance(throttle.FORGIVEN)
    for number in range(3):
        guesses.failed(b"new %d" % number)
        guesses.check(b"new %d" % number)
    guesses.check(b"first")
    assert len(guesses._failures) == 3


@ensureDeferred
async def test_an_address_that_tries_many_users_is_slowed_down(make: Make) -> None:
    """Failures of one address count together, for any user name.

    Break: `plugins/bootvol_plugins/embedded/identity.py`: `self._addresses.failed(guess.network)`
    -> `pass`.
    Break: `plugins/bootvol_plugins/embedded/identity.py`: `self._addresses.check(guess.network)` ->
    `pass`.
    """
    service = make(PEOPLE.replace('"embedded"', '"embedded"\naddress_failures = 3'))
    for name in ("bob", "eve", "mallory"):
        with pytest.raises(LoginFailed):
            await service.login(Password(Which(name=name), "x"), None, "192.0.2.1")
        # A user's success does not offset the failures of others.
        if name != "mallory":
            await log_in(service)
    with pytest.raises(TooManyLogins):
        await log_in(service)
    await service.login(ANN, DEMO, "192.0.2.2")
    # If the limit is off, and for programs behind a unix socket without an address.
    unlimited = make(PEOPLE.replace('"embedded"', '"embedded"\naddress_failures = 0'))
    for number in range(60):
        with pytest.raises(LoginFailed):
            await unlimited.login(Password(Which(name=str(number)), "x"), None, "192.0.2.1")
    for name in "abcdefgh":
        with pytest.raises(LoginFailed):
            await service.login(Password(Which(name=name), "x"), None, "")


@ensureDeferred
async def test_guesses_from_everywhere_are_slowed_down(make: Make) -> None:
    """Failures of one user count together, from any address.

    Break: `plugins/bootvol_plugins/embedded/identity.py`: `self._guesses.failed(guess.user)` ->
    `pass`.
    Break: `plugins/bootvol_plugins/embedded/identity.py`: `self._known.add(guess.both)` ->
    `self._known.add(b'')`.
    """
    service = make()
    await service.login(ANN, DEMO, "198.51.100.1")
    wrong = Password(Which(name="ann"), "wrong")
    for number in range(100):
        with pytest.raises(LoginFailed):
            await service.login(wrong, None, f"192.0.2.{number}")
    with pytest.raises(TooManyLogins):
        await service.login(wrong, None, "203.0.113.1")
    # Other users are not delayed, nor is the user at an address of an earlier log-in.
    with pytest.raises(LoginFailed):
        await service.login(Password(Which(name="bob"), "wrong"), None, "203.0.113.1")
    await service.login(ANN, DEMO, "198.51.100.1")


@pytest.mark.parametrize("name", ["bob", "nobody"])
@ensureDeferred
async def test_delays_do_not_tell_which_users_there_are(make: Make, name: str) -> None:
    """An id and an equal name are delayed together, even if no such user exists.

    Break: `plugins/bootvol_plugins/embedded/identity.py`: `claimed = "user", credentials.user.id or
    credentials.user.name` -> `claimed = "user", user or credentials.user`.
    """
    service = make()
    for _ in range(throttle.FREE):
        with pytest.raises(LoginFailed):
            await service.login(Password(Which(id=name), "wrong"), None, "192.0.2.1")
    for which in (Which(name=name), Which(id=name), Which(id=name, name=name)):
        with pytest.raises(TooManyLogins):
            await service.login(Password(which, "wrong"), None, "192.0.2.1")


@ensureDeferred
async def test_failures_have_few_lines_in_the_log(make: Make, clock: Clock) -> None:
    """Failed log-ins beyond the limit are counted, not logged.

    Break: `plugins/bootvol_plugins/embedded/identity.py`: `if self._failures.admit():` ->
    `if guess:`.
    """
    service = make()
    with capturedLogs() as logged:
        for number in range(2 * sparing.MOST):
            wrong = Password(Which(name=f"user {number}"), "wrong")
            with pytest.raises(LoginFailed):
                await service.login(wrong, None, f"192.0.2.{number}")
        clock.advance(sparing.PERIOD)
    *told, last = [text for each in logged if "failed" in (text := str(formatEvent(each)))]
    assert len(told) == sparing.MOST
    assert last == f"{sparing.MOST} more failed log-ins in {sparing.PERIOD} seconds"


# --- cost ----------------------------------------------------------------------------------------


@attrs.define
class Held:
    """Threads with calls that wait until the test ends them.

    :ivar calls: calls in progress, each with its arguments.
    """

    calls: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = attrs.Factory(list)

    async def run(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Accept a call."""
        waiting: Deferred[Any] = Deferred()
        self.calls.append((waiting, call, arguments))
        return await waiting

    def end(self) -> None:
        """End the first call."""
        waiting, call, arguments = self.calls.pop(0)
        waiting.callback(call(*arguments))


@ensureDeferred
async def test_a_flood_waits_in_a_short_line(clock: Clock, tmp_path: Path) -> None:
    """Two log-ins are verified at once, 32 more wait, and others are refused.

    Break: `plugins/bootvol_plugins/embedded/identity.py`: `_AT_ONCE: Final = 2` ->
    `_AT_ONCE: Final = 3`.
    """
    held = Held()
    service = identity(PluginContext(as_reactor(clock), held, "identity", clock.seconds), tmp_path)  # type: ignore[arg-type]
    logins = [
        Deferred.fromCoroutine(service.login(ANN, DEMO, f"192.0.2.{number}"))
        for number in range(2 + 32)
    ]
    assert len(held.calls) == 2
    with pytest.raises(TooManyLogins) as caught:
        await service.login(ANN, DEMO, "198.51.100.1")
    assert caught.value.retry_after == 1
    while held.calls:
        assert sum(call is passwords.verify for _, call, _ in held.calls) <= 2
        held.end()
    for each in logins:
        assert (await each).user.name == "ann"


@ensureDeferred
async def test_strangers_take_no_place_from_users_who_were_here(
    clock: Clock, tmp_path: Path
) -> None:
    """Users keep places at their earlier addresses, no matter from how many networks strangers
    come.

    Break: `plugins/bootvol_plugins/embedded/turns.py`: `if each.known == newcomer.known` -> `if
    each`.
    Break: `plugins/bootvol_plugins/embedded/identity.py`: `guess.user if known else guess.network,`
    -> `guess.network,`.
    """
    held = Held()
    service = identity(PluginContext(as_reactor(clock), held, "identity", clock.seconds), tmp_path)  # type: ignore[arg-type]

    def log_in(name: str, password: str, address: str) -> Deferred[Session]:
        credentials = Password(Which(name=name), password)
        return Deferred.fromCoroutine(service.login(credentials, OTHER, address))

    networks = [f"2001:db8:{number}::/64" for number in range(40)]
    before = [log_in("ann", PASSWORD, "192.0.2.1")]
    before += [log_in("bob", BOBS, network) for network in networks[:32]]
    while held.calls:
        held.end()
    await gatherResults(before)
    # Strangers from many networks, and bob from many networks of earlier log-ins.
    strangers = [log_in("who", "x", network) for network in networks]
    bobs = [log_in("bob", BOBS, network) for network in networks[:32]]
    with pytest.raises(TooManyLogins):
        await log_in("bob", BOBS, "198.51.100.1")
    ann = log_in("ann", PASSWORD, "192.0.2.1")
    # The earlier log-ins wait at most one second.
    for _ in range(2 + 32 + 2):
        held.end()
    assert ann.called
    assert (await ann).user.name == "ann"
    while held.calls:
        held.end()
    await DeferredList([*strangers, *bobs], consumeErrors=True)


@ensureDeferred
async def test_users_who_were_here_are_known_after_a_restart(make: Make, tmp_path: Path) -> None:
    """After a restart, guesses from elsewhere delay no user at an address of an earlier log-in.

    Break: `plugins/bootvol_plugins/embedded/known.py`: `OrderedDict.fromkeys(self._load())` ->
    `OrderedDict()`.
    """
    await log_in(make())
    kept = await until(lambda: list(tmp_path.rglob("known")))
    assert [stat.S_IMODE(each.stat().st_mode) for each in kept] == [0o600]
    service = make()
    for number in range(100):
        with pytest.raises(LoginFailed):
            await service.login(Password(Which(name="ann"), "x"), None, f"2001:db8:{number}::/64")
    with pytest.raises(TooManyLogins):
        await service.login(ANN, None, "198.51.100.1")
    assert (await log_in(service)).user.name == "ann"


@ensureDeferred
async def test_a_user_drives_no_others_out(make: Make) -> None:
    """A user who logs in from many networks keeps few of the remembered places.

    Break: `plugins/bootvol_plugins/embedded/known.py`: `if len(of_user) >= MOST_OF_A_USER:` ->
    `if False:`.
    Break: `plugins/bootvol_plugins/embedded/identity.py`: `return self.user[:half] +` -> `return
    _digest(self.network)[:half] +`.
    """
    service = make()
    bob = Password(Which(name="bob"), BOBS)
    await service.login(ANN, DEMO, "198.51.100.1")
    for number in range(2 * MOST_OF_A_USER):
        await service.login(bob, OTHER, f"2001:db8:{number:x}::/64")
    assert len(service._known._pairs) == MOST_OF_A_USER + 1
    wrong = Password(Which(name="ann"), "wrong")
    for number in range(100):
        with pytest.raises(LoginFailed):
            await service.login(wrong, None, f"192.0.2.{number}")
    await service.login(ANN, DEMO, "198.51.100.1")


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 33, b"x" * 32 * (MOST + 5)])
def test_any_file_of_known_users_is_read(tmp_path: Path, threads: Threads, content: bytes) -> None:
    path = tmp_path / "known"
    path.write_bytes(content)
    assert (b"x" * 32 in Known(path, threads)) == (len(content) >= 32)


@ensureDeferred
async def test_known_users_are_written_when_the_disk_is_well_again(
    tmp_path: Path, threads: Threads
) -> None:
    path, pair = tmp_path / "away" / "known", b"x" * 32
    known = Known(path, threads)
    with capturedLogs() as logged:
        for _ in range(3):
            known.add(pair)
            await until(lambda: not known._is_writing)
        path.parent.mkdir()
        known.add(pair)
        await until(lambda: not known._is_writing)
    assert path.read_bytes() == pair
    failed, well = map(formatEvent, logged)
    assert failed.startswith(f"{path}: [Errno 2] No such file or directory")
    assert well == f"{path}: the file is written again"


@ensureDeferred
async def test_a_network_does_not_fill_the_line(clock: Clock, tmp_path: Path) -> None:
    """One user fills all places with log-ins; another user has the next turn.

    Break: `plugins/bootvol_plugins/embedded/turns.py`: `if each.user not in self._running` -> `if
    each.user`.
    """
    held = Held()
    service = identity(PluginContext(as_reactor(clock), held, "identity", clock.seconds), tmp_path)  # type: ignore[arg-type]
    many = [Deferred.fromCoroutine(service.login(ANN, DEMO, "192.0.2.1")) for _ in range(1 + 32)]
    assert len(held.calls) == 1, "one user of one network logs in once at a time"
    with pytest.raises(TooManyLogins):
        await service.login(ANN, DEMO, "192.0.2.1")
    bob = Password(Which(name="bob"), BOBS)
    other = Deferred.fromCoroutine(service.login(bob, OTHER, "198.51.100.1"))
    assert len(held.calls) == 2
    held.end()
    held.end()
    assert (await other).user.name == "bob"
    while held.calls:
        held.end()
    ended = await DeferredList(many, consumeErrors=True)
    assert sum(good for good, _ in ended) == 32, "the last one gave its place up"


@ensureDeferred
async def test_networks_and_users_take_turns(clock: Clock) -> None:
    """Next is the network, then the user, with the longest time since the last turn.

    Break: `plugins/bootvol_plugins/embedded/turns.py`: `chosen = min(ready, key=self._had)` ->
    `chosen = ready[0]`.
    """
    turns = Turns(1, 32)
    order: list[bytes] = []

    async def log_in(network: bytes, user: bytes) -> None:
        async with turns.turn(network, user):
            order.append(network + user)
            await sleep(clock, 1)

    wanted = [b"a1", b"a1", b"a1", b"a2", b"b1", b"b1", b"c1"]
    logins = [Deferred.fromCoroutine(log_in(each[:1], each[1:])) for each in wanted]
    for _ in wanted:
        clock.advance(1)
    for each in logins:
        await each
    assert order == [b"a1", b"b1", b"c1", b"a2", b"b1", b"a1", b"a1"]


@ensureDeferred
async def test_a_user_leaves_the_line_to_others_of_the_same_network(clock: Clock) -> None:
    """All users come from one proxy, and one of them logs in without a pause.

    Break: `plugins/bootvol_plugins/embedded/turns.py`: `if is_own and users[newcomer.user] + 1 >= users[user]:` -> `if is_own:`
    """  # noqa: E501
    turns = Turns(1, 4)
    order: list[bytes] = []

    async def log_in(user: bytes) -> None:
        async with turns.turn(b"n", user):
            order.append(user)
            await sleep(clock, 1)

    many = [Deferred.fromCoroutine(log_in(b"greedy")) for _ in range(5)]
    others = [Deferred.fromCoroutine(log_in(user)) for user in (b"a", b"b")]
    with pytest.raises(TooManyLogins):
        await log_in(b"greedy")
    for _ in range(5):
        clock.advance(1)
    await gatherResults(others)
    assert order == [b"greedy", b"a", b"b", b"greedy", b"greedy"]
    ended = await DeferredList(many, consumeErrors=True)
    assert [good for good, _ in ended] == [True, True, True, False, False]


@ensureDeferred
async def test_those_that_wait_in_line_are_guesses_too(clock: Clock, tmp_path: Path) -> None:
    held = Held()
    service = identity(PluginContext(as_reactor(clock), held, "identity", clock.seconds), tmp_path)  # type: ignore[arg-type]
    wrong = Password(Which(name="ann"), "wrong")
    logins = [Deferred.fromCoroutine(service.login(wrong, None, "192.0.2.1")) for _ in range(30)]
    looked_at = 0
    while held.calls:
        looked_at += 1
        held.end()
    assert looked_at <= throttle.FREE + 1
    for each in logins:
        with pytest.raises((LoginFailed, TooManyLogins)):
            await each


def test_the_decoy_costs_as_the_dearest_hash(make: Make) -> None:
    """The decoy is the most expensive of the hashes.

    Break: `plugins/bootvol_plugins/embedded/identity.py`: `self._decoy = max(` -> `self._decoy =
    min(`.
    """
    dear = PasswordHasher(time_cost=3, memory_cost=32768, parallelism=1).hash("x")
    kept = re.findall(r'"(\$argon2id[^"]+)"', PEOPLE)
    with capturedLogs() as logged:
        service = make(PEOPLE.replace(kept[-1], dear))
    assert service._decoy == dear
    told = [text for each in logged if "takes another" in (text := str(formatEvent(each)))]
    assert any("user bob" in each for each in told)


def test_the_cost_of_what_is_no_hash() -> None:
    assert passwords.cost(passwords.hash_password("x")) == passwords.COST
    for wrong in ("", "x", "$argon2id$v=19$m=x,t=1,p=1$AAAA$AAAA", "$2b$12$abcdefghijklmnopqrstuv"):
        with pytest.raises(IdentityFailed, match="A hash cannot be read"):
            passwords.cost(wrong)


@ensureDeferred
async def test_who_is_not_there_costs_the_same(clock: Clock, tmp_path: Path) -> None:
    """For an unknown user, a hash of the same cost is verified.

    Break: `plugins/bootvol_plugins/embedded/identity.py`: `kept = secret.kept if secret else
    self._decoy` -> `kept = secret.kept if secret else ''`.
    """
    held = Held()
    service = identity(PluginContext(as_reactor(clock), held, "identity", clock.seconds), tmp_path)  # type: ignore[arg-type]
    cost = []
    for name in ("ann", "nobody"):
        login = Deferred.fromCoroutine(service.login(Password(Which(name=name), "x"), None, name))
        ((_, call, (kept, _given)),) = held.calls
        cost.append((call, kept.rpartition("$")[0].rpartition("$")[0]))
        held.end()
        with pytest.raises(LoginFailed):
            await login
    assert cost[0] == cost[1]


@ensureDeferred
async def test_the_decoys_password_opens_nothing(make: Make) -> None:
    """The decoy is the hash of somebody's password: that password must not let a stranger in.

    Break: `plugins/bootvol_plugins/embedded/identity.py`: `self._passwords.get(user.id) if user
    else None` -> `self._passwords.get(user.id) if user else next(iter(self._passwords.values()))`.
    """
    with pytest.raises(LoginFailed):
        await make().login(Password(Which(name="nobody"), PASSWORD), None, "192.0.2.1")


# --- the configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        (PASSWORD_HASH, PASSWORD, "this is not a hash; make one with `bootvol hash-password`"),
        (PASSWORD_HASH, "file:none", "the file none cannot be read"),
        (PASSWORD_HASH, "file:", "this is not a path"),
        (PASSWORD_HASH, "env:BOOTVOL_NONE", "the environment variable BOOTVOL_NONE is not set"),
        ('name = "bob"', 'name = "ann"', "the user name 'ann' is given twice"),
        ('name = "bob"', 'name = "bob"\nid = "10"', "the user id '10' is given twice"),
        ('name = "bob"', 'name = "bob marley"', "String should match pattern"),
        ('name = "closed"', 'name = "demo"\nid = "x"', "the project name 'demo' is given twice"),
        ('name = "closed"', f'name = "x"\nid = "{TENANT}"', "the project id '11692683195772' is"),
        ('name = "closed"', 'id = "x"', "Field required"),
        ("{ other", "{ nowhere", "the user 'bob' has roles in 'nowhere', which is not a project"),
        ('other = ["member"] }\n\n', "other = [] }\n\n", "List should have at least 1 item"),
        ('plugin = "embedded"', 'plugin = "embedded"\ntoken_hours = 0', "greater than 0"),
    ],
)
def test_mistakes(tmp_path: Path, was: str, becomes: str, told: str) -> None:
    assert was in PEOPLE
    with pytest.raises(ValidationError) as caught:
        options(tmp_path, PEOPLE.replace(was, becomes))
    assert told in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_somebody_who_cannot_log_in(tmp_path: Path) -> None:
    text = f'{PEOPLE}\n[[identity.users]]\nname = "eve"\n'
    with pytest.raises(ValidationError, match="the user 'eve' has neither password_hash nor"):
        options(tmp_path, text)


@ensureDeferred
async def test_hashes_from_elsewhere(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hash").write_text(PASSWORD_HASH + "\n")
    monkeypatch.setenv("BOOTVOL_ANNS_HASH", PASSWORD_HASH)
    for place in ("file:hash", f"file:{tmp_path}/hash", "env:BOOTVOL_ANNS_HASH"):
        session = await log_in(make(PEOPLE.replace(PASSWORD_HASH, place)))
        assert session.project is not None
        assert session.project.id == TENANT


def test_passwords() -> None:
    kept = passwords.hash_password("p\ud800é")
    assert passwords.is_hash(kept)
    assert passwords.verify(kept, "p\ud800é")
    assert not passwords.verify(kept, "p\ud800e")
    assert passwords.hash_password("p") != passwords.hash_password("p")
    for wrong in ("", "p", kept[:-1] + " ", kept + "\n", kept.replace("argon2id", "argon2i")):
        assert not passwords.is_hash(wrong)
    damaged = kept[:-2]
    assert passwords.is_hash(damaged)
    with pytest.raises(IdentityFailed, match="cannot be verified"):
        passwords.verify(damaged, "p")
