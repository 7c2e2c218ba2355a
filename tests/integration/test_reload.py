"""Settings that change while the daemon runs: tokens, users, and mistakes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NoReturn

import pytest
import trustme
from pytest_twisted import ensureDeferred
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from bootvol import plugins, settings
from bootvol_plugins.embedded.key import signing_key
from bootvol_plugins.static import StaticIdentity
from tests.daemons import Running
from tests.people import PASSWORD, PEOPLE
from tests.waiting import until

NEW_TOKEN = '[[identity.tokens]]\ntoken = "carol"\ntenant = "11692683195772"\nuser = "carol"\n'

KEYSTONE = """
[identity]
plugin = "keystone"
url = "https://127.0.0.1:1"
username = "bootvol"
password = "secret"
ca = "ca.pem"
"""
KEEPING_A_CA = """
[[sources]]
name = "web"
plugin = "http"
allow = ["https://127.0.0.1:1/"]
ca = "ca.pem"
"""


async def status(running: Running, token: str) -> int:
    """Return the status of a call with a token."""
    return (await running.call("GET", "os-volumes", token=token)).status


async def told(running: Running) -> str:
    """Reload; return the log's lines about the reload."""
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
        # A mistake changes nothing, and the log has the remedy.
        config.write_text(text + NEW_TOKEN + NEW_TOKEN)
        assert "have the same token" in await told(running)
        assert await status(running, "carol") == 200
        config.write_text("no TOML")
        assert "is not valid TOML" in await told(running)
        # A secret open to other users has the same effect.
        (tmp_path / "bobs").write_text("bobby")
        (tmp_path / "bobs").chmod(0o644)
        config.write_text(text.replace('token = "bob"', 'token = "file:bobs"'))
        assert f"Run: chmod 600 {tmp_path / 'bobs'}" in await told(running)
        assert await status(running, "carol") == 200
        # Changes that take effect at a restart are reported, not applied.
        config.write_text(text.replace('directory = "images"', 'directory = "pictures"'))
        said = await told(running)
        assert "applied by a restart only: sources[0]" in said
        assert "applied: identity" in said
        config.write_text(text + "\n[quota]\nvolumes = 3\n")
        assert "applied by a restart only: quota" in await told(running)
    finally:
        await running.stop()


@ensureDeferred
async def test_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging read does not delay later reloads."""
    running = Running(tmp_path)
    monkeypatch.setattr(plugins, "PATIENCE", 0.2)
    goes_on = threading.Event()

    def hang(_file: Path, _listening: object = ()) -> NoReturn:
        goes_on.wait()
        raise RuntimeError

    try:
        with monkeypatch.context() as patched:
            patched.setattr(settings, "load", hang)
            assert "the settings stay as they were: no answer" in await told(running)
        monkeypatch.setattr(plugins, "PATIENCE", 60.0)
        running.config.write_text(running.config.read_text().replace('"bob"', '"bobby"', 1))
        assert await told(running) == "applied: identity"
        assert await status(running, "bob") == 401
    finally:
        goes_on.set()
        await running.stop()


@ensureDeferred
async def test_a_plugin_with_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of a plugin is reported as well."""

    async def fail(_plugin: object, _settings: object) -> None:
        raise ValueError("no such thing")

    running = Running(tmp_path)
    monkeypatch.setattr(StaticIdentity, "reload", fail)
    try:
        running.config.write_text(running.config.read_text() + NEW_TOKEN)
        assert "identity stays as it was: no such thing" in await told(running)
        assert await status(running, "ann") == 200
    finally:
        await running.stop()


@ensureDeferred
async def test_authorities(tmp_path: Path) -> None:
    """New authorities are applied, although the configuration names the same file."""
    pem = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(pem)
    running = Running(tmp_path, KEEPING_A_CA, identity=KEYSTONE)
    try:
        assert await told(running) == "applied: nothing new"
        trustme.CA().cert_pem.write_to_path(pem)
        said = await told(running)
        assert "applied by a restart only: sources[1]" in said
        assert "applied: identity" in said
        pem.write_text("no certificate")
        assert "identity stays as it was: ca: " in await told(running)
    finally:
        await running.stop()


@ensureDeferred
async def test_users(tmp_path: Path) -> None:
    """Tokens of remaining users stay valid; tokens of removed users end."""
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


@ensureDeferred
async def test_a_new_signing_key(tmp_path: Path) -> None:
    """A new key ends all tokens: the former key may have been stolen.

    Break: `plugins/bootvol_plugins/embedded/identity.py`: `self._tokens = Tokens(key)` -> `pass`.
    """
    key = tmp_path / "secret-key"
    key.touch(mode=0o600)
    key.write_bytes(b"1" * 32)
    named = PEOPLE.replace(
        'plugin = "embedded"\n', 'plugin = "embedded"\nkey_file = "secret-key"\n'
    )
    running = Running(tmp_path, identity=named)
    try:
        ann = await log_in(running, "ann")
        key.write_bytes(b"short")
        assert "applied: identity" in await told(running)
        assert await status(running, ann) == 200, "the former key stays in service"
        key.write_bytes(b"2" * 32)
        assert "applied: identity" in await told(running)
        assert await status(running, ann) == 401
        assert await status(running, await log_in(running, "ann")) == 200
    finally:
        await running.stop()


@ensureDeferred
async def test_settings_that_come_late_undo_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk of the signing key hangs during a reload, and answers after the next reload.

    Break: `src/bootvol/reload.py`: `running.cancel()` -> `pass`.
    """
    key = tmp_path / "secret-key"
    key.touch(mode=0o600)
    key.write_bytes(b"1" * 32)
    named = PEOPLE.replace(
        'plugin = "embedded"\n', 'plugin = "embedded"\nkey_file = "secret-key"\n'
    )
    goes_on, ended = threading.Event(), threading.Event()

    def hang(directory: Path, file: Path | None) -> bytes:
        goes_on.wait()
        ended.set()
        return signing_key(directory, file)

    running = Running(tmp_path, identity=named)
    try:
        ann = await log_in(running, "ann")
        text = running.config.read_text()
        with monkeypatch.context() as patched:
            patched.setattr(plugins, "PATIENCE", 0.2)
            patched.setattr("bootvol_plugins.embedded.identity.signing_key", hang)
            running.config.write_text(text.replace('name = "bob"', 'name = "carol"'))
            assert "identity stays as it was: no answer" in await told(running)
        running.config.write_text(text.replace('"ann"', '"anna"').replace('id = "10"', 'id = "11"'))
        assert "applied: identity" in await told(running)
        goes_on.set()
        await until(ended.is_set, bool)
        # The threads of the plugin answer in order, so the late settings would be in use by now.
        assert await status(running, await log_in(running, "anna")) == 200
        assert await status(running, ann) == 401, "the removed user stays removed"
    finally:
        goes_on.set()
        await running.stop()


async def log_in(running: Running, name: str) -> str:
    """Return a token of a user with ann's password, for the project demo."""
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
