"""Settings that change while the daemon runs: tokens, users, and the mistakes in them."""

from __future__ import annotations

from pathlib import Path

from pytest_twisted import ensureDeferred
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from tests.daemons import Running
from tests.people import PASSWORD, PEOPLE

NEW_TOKEN = '[[identity.tokens]]\ntoken = "carol"\ntenant = "11692683195772"\nuser = "carol"\n'


async def status(running: Running, token: str) -> int:
    """Return how a call with a token is answered."""
    return (await running.call("GET", "os-volumes", token=token)).status


async def told(running: Running) -> str:
    """Reload; return what the log says of that."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: dict[str, object]) -> None:
        if event.get("log_namespace") == "bootvol.reload.Reloader":
            lines.append(str(event["log_format"]).format(**event))

    globalLogPublisher.addObserver(observe)
    try:
        await running.reload()
    finally:
        globalLogPublisher.removeObserver(observe)
    return "\n".join(lines)


@ensureDeferred
async def test_tokens(tmp_path: Path) -> None:
    """Break: `src/bootvol/reload.py`: `[*secrecy.of_files(config), ` -> `[`"""
    running = Running(tmp_path)
    try:
        config = running.config
        text = config.read_text()
        assert await status(running, "carol") == 401
        config.write_text(text.replace('token = "bob"', 'token = "bobby"') + NEW_TOKEN)
        assert await told(running) == "applied: identity"
        assert [await status(running, token) for token in ("ann", "carol")] == [200, 200]
        assert await status(running, "bob") == 401
        # A mistake leaves all as it was, and is told with its remedy.
        config.write_text(text + NEW_TOKEN + NEW_TOKEN)
        assert "have the same token" in await told(running)
        assert await status(running, "carol") == 200
        config.write_text("no TOML")
        assert "is not TOML" in await told(running)
        # So does a secret that other users may read.
        (tmp_path / "bobs").write_text("bobby")
        (tmp_path / "bobs").chmod(0o644)
        config.write_text(text.replace('token = "bob"', 'token = "file:bobs"'))
        assert f"Run: chmod 600 {tmp_path / 'bobs'}" in await told(running)
        assert await status(running, "carol") == 200
        # What takes a restart is told, and is not applied.
        config.write_text(text.replace('directory = "images"', 'directory = "pictures"'))
        said = await told(running)
        assert "applied by a restart only: sources[0]" in said
        assert "applied: identity" in said
        config.write_text(text + "\n[quota]\nvolumes = 3\n")
        assert "applied by a restart only: quota" in await told(running)
    finally:
        await running.stop()


@ensureDeferred
async def test_users(tmp_path: Path) -> None:
    """Tokens of users who stay go on; those of users who are gone end."""
    running = Running(tmp_path, identity=PEOPLE)
    try:
        ann = await log_in(running, "ann")
        assert await status(running, ann) == 200
        config = running.config
        text = config.read_text()
        config.write_text(text.replace('name = "bob"', 'name = "carol"'))
        assert "applied: identity" in await told(running)
        assert await status(running, ann) == 200
        config.write_text(text.replace('"ann"', '"anna"').replace('id = "10"', 'id = "11"'))
        assert "applied: identity" in await told(running)
        assert await status(running, ann) == 401
        assert await status(running, await log_in(running, "anna")) == 200
    finally:
        await running.stop()


async def log_in(running: Running, name: str) -> str:
    """Return a token of a user, whose password is ann's, for the project demo."""
    user = {"name": name, "domain": {"id": "default"}, "password": PASSWORD}
    body = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": "demo", "domain": {"id": "default"}}},
        }
    }
    answer = await running.request("POST", "/identity/v3/auth/tokens", body, token=None)
    assert answer.status == 201, answer.body
    return answer.headers["x-subject-token"]
