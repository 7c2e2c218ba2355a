"""The commands, as run by operators and scripts."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bootvol.testing.backends import noise
from tests.daemons import TENANT, configuration
from tests.processes import BIN, TWISTD, Process, cli, process, run
from tests.servers import free_port
from tests.waiting import LIMIT, block_until

#: The image has the signature of a boot sector.
CONTENT = noise(510) + b"\x55\xaa" + noise(2 * 1024 * 1024 - 512)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Process]:
    """A daemon with one image."""
    with process(tmp_path) as daemon:
        (daemon.images / "disk.raw").write_bytes(CONTENT)
        yield daemon


def test_a_volume_by_commands(daemon: Process) -> None:
    listed = daemon.cli("image", "list")
    assert "disk.raw" in listed.stdout
    made = daemon.cli(
        "volume", "create", "--image", "disk.raw", "--size", "1", "--name", "root", "--wait"
    )
    assert made.returncode == 0, made.stderr
    volume = json.loads(made.stdout)
    assert volume["status"] == "available"
    assert volume["sourceImageRef"] == "disk.raw"
    assert "done" in made.stderr
    assert "2.0/2.0 MiB" in made.stderr
    assert json.loads(daemon.cli("volume", "show", str(volume["id"])).stdout) == volume
    assert "root" in daemon.cli("volume", "list").stdout
    assert json.loads(daemon.cli("volume", "list", "--bootable", "--json").stdout) == [volume]
    blank = json.loads(daemon.cli("volume", "create", "--size", "1", "--wait").stdout)
    assert blank["status"] == "available"
    assert daemon.cli("volume", "delete", str(volume["id"])).returncode == 0
    assert daemon.until_settled() == ["available"]


def test_snapshots_by_commands(daemon: Process) -> None:
    volume = json.loads(daemon.cli("volume", "create", "--size", "1", "--wait").stdout)["id"]
    made = daemon.cli("snapshot", "create", str(volume), "--name", "before", "--wait")
    assert made.returncode == 0, made.stderr
    assert "snapshot 1: creating" in made.stderr
    snapshot = json.loads(made.stdout)
    assert (snapshot["status"], snapshot["volumeId"]) == ("available", volume)
    assert json.loads(daemon.cli("snapshot", "list", "--json").stdout) == [snapshot]
    assert "before" in daemon.cli("snapshot", "list").stdout
    assert json.loads(daemon.cli("snapshot", "show", "1").stdout) == snapshot
    assert daemon.cli("snapshot", "delete", "1", "--wait").returncode == 0
    for words in (("show", "1"), ("delete", "1"), ("create", "7")):
        assert daemon.cli("snapshot", *words).returncode == 4


def test_the_progress_of_a_compressed_image(daemon: Process) -> None:
    """At the end, the whole is the size of the disk, not of the file."""
    (daemon.images / "disk.gz").write_bytes(gzip.compress(noise(1024 * 1024) + bytes(1024 * 1024)))
    made = daemon.cli("volume", "create", "--size", "1", "--image", "disk.gz", "--wait")
    assert "2.0/2.0 MiB" in made.stderr


def test_a_new_configuration_has_a_token_of_its_own(tmp_path: Path) -> None:
    texts = []
    for folder in (tmp_path / "one", tmp_path / "other"):
        made = cli("init", str(folder))
        assert made.returncode == 0, made.stderr
        config = folder / "twistd.conf"
        assert config.stat().st_mode & 0o777 == 0o600
        checked = cli("check-config", str(config))
        assert checked.returncode == 0, checked.stderr
        texts.append(config.read_text())
        again = cli("init", str(folder))
        assert again.returncode == 1
        assert "already exists" in again.stderr
        assert config.read_text() == texts[-1]
    assert texts[0] != texts[1]
    assert "demo-token" not in "".join(texts)


@pytest.mark.parametrize(
    ("command", "left"),
    [("init made", "made/twistd.conf"), ("plugin new shelf --into made", "made")],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, command: str, left: str) -> None:
    """A limit on the size of files stands for a full disk."""
    failed = run(["sh", "-c", f"ulimit -f 1; {BIN / 'bootvol'} {command}"], cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr == f"bootvol: {left}: File too large\n"
    assert not (tmp_path / left).exists()
    made = cli(*command.split(), cwd=tmp_path)
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize("token", ["the-secret\r", "the-secret\nx", "the-secret \u20ac"])
def test_a_token_that_is_none_is_not_shown(token: str) -> None:
    """A file with the line ends of Windows, say."""
    env = {"BOOTVOL_ENDPOINT": "http://127.0.0.1:1/v1.1/demo", "BOOTVOL_TOKEN": token}
    listed = cli("volume", "list", env=env)
    assert listed.returncode == 3
    assert listed.stderr.startswith("bootvol: the token contains a line end or another character")
    assert "secret" not in listed.stderr


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    env = {"BOOTVOL_ENDPOINT": "https://127.0.0.1:1/v1.1/demo", "OS_CACERT": f"{tmp_path}/ca"}
    listed = cli("volume", "list", env={**env, "BOOTVOL_TOKEN": "x"})
    assert listed.returncode == 1
    assert listed.stderr == f"bootvol: OS_CACERT: {tmp_path}/ca: No such file or directory\n"


def test_a_failure_is_told_with_its_remedy(daemon: Process) -> None:
    (daemon.images / "page").write_bytes(b"<html>")
    made = daemon.cli("volume", "create", "--image", "page", "--size", "1", "--wait")
    assert made.returncode == 1
    assert "The image is an HTML or XML page, not a disk." in made.stderr
    assert "Check that the image reference leads to a disk image. (not-a-disk)" in made.stderr
    shown = json.loads(daemon.cli("volume", "show", "1").stdout)
    assert shown["error"]["code"] == "not-a-disk"


def test_a_warning_is_shown_while_waiting_and_afterwards(daemon: Process) -> None:
    (daemon.images / "noise").write_bytes(noise(2 * 1024 * 1024))
    made = daemon.cli("volume", "create", "--image", "noise", "--size", "1", "--wait")
    assert made.returncode == 0, made.stderr
    (warning,) = json.loads(daemon.cli("volume", "show", "1").stdout)["warnings"]
    assert warning["code"] == "unidentified-image"
    # Lines may be wrapped at the terminal's width.
    told = " ".join(made.stderr.split())
    assert told.count(f"warning: {warning['message']} (unidentified-image)") == 1


def test_types_quotas_and_limits(daemon: Process) -> None:
    made = daemon.cli("type", "create", "gold", "--backend", "local")
    specs = {"volume_backend_name": "local"}
    assert json.loads(made.stdout) == {"id": 1, "name": "gold", "extra_specs": specs}
    assert json.loads(daemon.cli("type", "list", "--json").stdout) == [json.loads(made.stdout)]
    assert "volume_backend_name=local" in daemon.cli("type", "list").stdout
    volume = daemon.cli("volume", "create", "--size", "1", "--type", "gold", "--wait")
    assert json.loads(volume.stdout)["volumeType"] == "gold"
    assert daemon.cli("type", "delete", "1").returncode == 0
    assert daemon.cli("type", "delete", "1").returncode == 4
    unknown = daemon.cli("type", "create", "x", "--backend", "y")
    assert unknown.returncode == 1
    assert "Use one of: local." in unknown.stderr

    changed = daemon.cli("quota", "set", TENANT, "--volumes", "5", "--gigabytes", "-1")
    bounds = {"volumes": 5, "gigabytes": -1, "snapshots": 10, "instances": 10, "key_pairs": 100}
    assert json.loads(changed.stdout) == bounds
    own = daemon.cli("quota", "show", token="ann")
    assert json.loads(own.stdout) == {"id": TENANT, **bounds}
    assert json.loads(daemon.cli("quota", "show", "other").stdout)["volumes"] == 10
    assert daemon.cli("quota", "show", "other", token="ann").returncode == 3
    assert daemon.cli("quota", "set", TENANT, "--volumes", "1", token="ann").returncode == 3
    assert daemon.cli("quota", "set", TENANT, "--volumes", "-2").returncode == 2
    absolute = json.loads(daemon.cli("limits").stdout)["absolute"]
    assert (absolute["maxTotalVolumes"], absolute["totalVolumesUsed"]) == (5, 1)


#: Hostile names: markup, and causes of a traceback; a clear of the terminal, a new title and a new
#: clipboard; a change of direction, and a line break.
HARD_NAMES = [
    "disk [/srv]",
    "[bold red]markup[/] [link=file:///etc/passwd]click[/link]",
    "esc \x1b[2J\x1b]0;title\x07\x1b]52;c;cm0gLXJmIC8=\x07",
    "csi \x9b31m del \x7f",
    "turned \u202efdp.exe\u2028next",
    "x" * 200,
]


def test_names_leave_the_terminal_alone(daemon: Process) -> None:
    """The command line shows hostile names escaped.

    Break: `src/bootvol/cli/text.py`: `if text.isprintable():` -> `if text:`.
    """
    wanted = [{"size": 1, "display_name": name, "display_description": name} for name in HARD_NAMES]
    for volume in wanted:
        daemon.call("POST", "os-volumes", {"volume": volume})
    daemon.until_settled()
    listed = daemon.cli("volume", "list")
    assert listed.returncode == 0, listed.stderr
    rows = listed.stdout.splitlines()
    assert len(rows) == 1 + len(HARD_NAMES)
    for name, row in zip(HARD_NAMES, rows[1:], strict=True):
        assert row.isprintable()
        assert name.encode("unicode_escape").decode() in row
    for number, name in enumerate(HARD_NAMES, 1):
        one = daemon.cli("volume", "show", str(number)).stdout
        assert one.replace("\n", "").isprintable()
        assert json.loads(one)["displayName"] == name
    whole = daemon.cli("volume", "list", "--json").stdout
    assert whole.replace("\n", "").isprintable()
    refused = daemon.cli("type", "create", "x", "--backend", "x\x1b[31m\x1b]0;t\x07\nbootvol: done")
    assert refused.returncode == 1
    assert "x\\x1b[31m" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stderr.removesuffix("\n").isprintable()


def test_a_terminal_that_knows_few_letters(daemon: Process) -> None:
    daemon.call("POST", "os-volumes", {"volume": {"size": 1, "display_name": "gr\u00fcn \u20ac"}})
    env = {"BOOTVOL_ENDPOINT": daemon.base, "BOOTVOL_TOKEN": "root", "PYTHONIOENCODING": "ascii"}
    listed = cli("volume", "list", env=env)
    assert "gr\\xfcn \\u20ac" in listed.stdout
    (volume,) = json.loads(cli("volume", "list", "--json", env=env).stdout)
    assert volume["displayName"] == "gr\u00fcn \u20ac"


@pytest.mark.parametrize("command", [["volume", "list"], ["limits"]])
def test_what_cannot_be_printed(daemon: Process, command: list[str]) -> None:
    env = {"BOOTVOL_ENDPOINT": daemon.base, "BOOTVOL_TOKEN": "root"}
    words = " ".join([str(BIN / "bootvol"), *command])
    full = run(["sh", "-c", f"{words} >/dev/full"], env)
    assert full.returncode == 1
    assert full.stderr == "bootvol: standard output: No space left on device\n"
    closed = run(["sh", "-c", f"{words} >&-"], env)
    assert (closed.returncode, closed.stderr) == (0, "")


def test_without_a_token_the_ways_to_give_one_are_told(daemon: Process) -> None:
    without = daemon.cli("volume", "list", token="")
    assert without.returncode == 3
    assert "(HTTP 401); no token was given: set BOOTVOL_TOKEN or give --token" in without.stderr
    assert "OS_AUTH_URL" in without.stderr
    assert "no token was given" not in daemon.cli("volume", "list", token="wrong").stderr


def test_exit_codes(daemon: Process) -> None:
    assert daemon.cli("volume", "show", "7").returncode == 4
    assert daemon.cli("volume", "delete", "../7").returncode == 4
    assert daemon.cli("volume", "list", token="wrong").returncode == 3
    assert daemon.cli("volume", "create").returncode == 2
    assert daemon.cli("volume", "create", "--size", "0").returncode == 2
    for unset in ("--image", "--type"):
        assert daemon.cli("volume", "create", "--size", "1", unset, "").returncode == 2
    assert daemon.cli("volume", "create", "--size", "5000").returncode == 1
    assert daemon.cli("volume", "create", "--size", "1", "--image", "no").returncode == 4
    daemon.cli("volume", "create", "--size", "1", "--wait")
    assert daemon.cli("volume", "boot", "1", token="ann").returncode == 3
    wrong = daemon.cli("--endpoint", "http://[::1", "volume", "list")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1)
    encrypted = daemon.cli("--endpoint", daemon.base.replace("http", "https", 1), "volume", "list")
    assert encrypted.returncode == 5
    assert "The URL may have to begin with http://" in encrypted.stderr
    short = daemon.cli("--endpoint", daemon.url, "volume", "list")
    assert short.stderr == (
        "bootvol: the URL leads to a list of versions: an endpoint ends in a version and a project,"
        " as in http://HOST:PORT/v1.1/PROJECT\n"
    )
    daemon.stop()
    gone = daemon.cli("volume", "list")
    assert gone.returncode == 5
    assert "cannot be reached" in gone.stderr
    assert len(gone.stderr.splitlines()) == 1


def test_a_proxy_that_is_away(tmp_path: Path) -> None:
    """The message says that the request went through a proxy, without the proxy's password.

    Break: `src/bootvol/cli/http.py`: `return f" through the proxy in {scheme}_proxy"` -> `return
    ""`
    """
    env = {"BOOTVOL_ENDPOINT": "http://storage.example/v1.1/x", "BOOTVOL_TOKEN": "root"}
    proxied = {**env, "http_proxy": f"http://me:secret@127.0.0.1:{free_port()}", "no_proxy": ""}
    told = cli("volume", "list", env=proxied).stderr
    assert "cannot be reached through the proxy in http_proxy: " in told
    assert "secret" not in told
    own = f"http://127.0.0.1:{free_port()}/v1.1/x"
    bypassed = {**proxied, "BOOTVOL_ENDPOINT": own, "no_proxy": "127.0.0.1"}
    assert f"{own}/os-volumes cannot be reached: " in cli("volume", "list", env=bypassed).stderr


def test_a_token_goes_nowhere_else(tmp_path: Path) -> None:
    """A server in the service's place cannot redirect a client together with its token.

    Break: `src/bootvol/cli/http.py`: `def redirect_request(self` -> `def redirected_request(self`.
    """
    asked: list[str] = []

    class Away(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{server.server_port}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Away) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            env = {"BOOTVOL_ENDPOINT": f"http://127.0.0.1:{server.server_port}/v1.1/demo"}
            refused = cli("--token", "secret", "volume", "list", env=env)
        finally:
            server.shutdown()
    assert refused.returncode == 1
    assert "HTTP 302" in refused.stderr
    assert asked == ["/v1.1/demo/os-volumes"]


@pytest.mark.parametrize("status", [b"200 OK", b"503 Busy"])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 %s\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 %s\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 %s\r\nContent-Length: 2\r\nRetry-After: soon\r\n\r\n\xff\x1b",
    ],
)
def test_a_service_that_ends_within_its_answer(answer: bytes, status: bytes) -> None:
    """A killed service ends in this way."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer.replace(b"%s", status))

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1.1/demo"
        failed = cli("volume", "list", env={"BOOTVOL_ENDPOINT": url, "BOOTVOL_TOKEN": "t"})
        thread.join()
    assert failed.returncode in {1, 5}
    assert len(failed.stderr.splitlines()) == 1
    assert failed.stderr.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"{}", "answer has no 'volumes'"),
        (b'{"volumes": [{}]}', "'volumes' in the answer of the service has another form"),
        (b"[]", "answers with JSON other than an object"),
        (b"<html>", "answers with invalid JSON"),
        (b"[" * 100_000, "answers with invalid JSON"),
        (b"", "the service's answer is empty"),
    ],
)
def test_another_service_answers(answer: bytes, told: str) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/v1.1/demo"
            failed = cli("volume", "list", env={"BOOTVOL_ENDPOINT": url, "BOOTVOL_TOKEN": "t"})
        finally:
            server.shutdown()
    assert failed.returncode in {1, 5}
    assert told in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_check_config(tmp_path: Path) -> None:
    config = tmp_path / "x.conf"
    config.write_text(configuration(1))
    good = cli("check-config", str(config))
    assert (good.returncode, good.stdout) == (0, f"{config}: ok\n")
    config.write_text(configuration(1, "[quota]\nvolumes = 'x'"))
    bad = cli("check-config", str(config))
    assert bad.returncode == 1
    assert f"{config}: quota.volumes: 'x'" in bad.stderr
    started = run([*TWISTD, "--config", config], cwd=tmp_path)
    assert started.returncode != 0
    assert f"{config}: quota.volumes: 'x'" in started.stdout + started.stderr
    assert "Traceback" not in started.stdout + started.stderr


def test_db_upgrade(tmp_path: Path) -> None:
    config = tmp_path / "x.conf"
    config.write_text(configuration(1))
    for _ in range(2):
        done = cli("db", "upgrade", "--config", str(config))
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "bootvol.db").exists()


def test_a_second_daemon_is_refused(daemon: Process) -> None:
    second = run([BIN / "bootvol", "serve", "--config", daemon.config], cwd=daemon.folder)
    assert second.returncode != 0
    assert "another daemon uses" in second.stdout + second.stderr


def test_a_port_that_is_taken(daemon: Process, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    config = folder / "twistd.conf"
    config.write_text(configuration(daemon.port))
    front = run([*TWISTD, "--config", config], cwd=folder)
    assert front.returncode != 0
    assert "Address already in use" in front.stdout + front.stderr
    assert "End that program, or name another port." in front.stdout + front.stderr
    behind = run([BIN / "twistd", "bootvol", "--config", config], cwd=folder)
    assert behind.returncode != 0
    assert "Address already in use" in behind.stdout + behind.stderr


def test_twistd_as_a_daemon(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "images").mkdir()
    (tmp_path / "twistd.conf").write_text(configuration(port))
    started = run([BIN / "twistd", "bootvol"], cwd=tmp_path)
    assert started.returncode == 0, started.stderr
    pid = int((tmp_path / "twistd.pid").read_text())
    try:
        env = {"BOOTVOL_ENDPOINT": f"http://127.0.0.1:{port}/v1.1/11692683195772"}
        made = block_until(
            lambda: cli("--token", "ann", "volume", "create", "--size", "1", "--wait", env=env),
            lambda ended: ended.returncode != 5,
        )
        assert made.returncode == 0, made.stderr
    finally:
        os.kill(pid, signal.SIGTERM)
    block_until(lambda: not (tmp_path / "twistd.pid").exists())
    log = (tmp_path / "twistd.log").read_text()
    assert "Server Shut Down" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("volume", "list"), ""),
        (
            ("volume", "create", "--size", "1"),
            "interrupted before the service's answer; the service",
        ),
        (("volume", "boot", "1"), "bootvol: interrupted"),
    ],
)
def test_ctrl_c_ends_a_command_whose_service_is_silent(words: tuple[str, ...], told: str) -> None:
    """The exit code is 130, and the user hears of work that the service may do.

    Break: `src/bootvol/cli/signals.py`: `self._breaks_off = True` -> `pass`
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(LIMIT)
        env = {"BOOTVOL_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}/v1.1/t"}
        command = subprocess.Popen(
            [BIN / "bootvol", *words], env={**os.environ, **env}, stderr=subprocess.PIPE, text=True
        )
        connection, _ = silent.accept()
        with connection:
            # The whole request has come: the command waits for the answer.
            assert connection.recv(65536)
            command.send_signal(signal.SIGINT)
            said = command.communicate(timeout=LIMIT)[1]
    assert command.returncode == 130
    assert told in said
    assert "Traceback" not in said


def test_ctrl_c_during_the_imports_of_a_command(tmp_path: Path) -> None:
    """Python discards an exception in a callback, so the handler of the signal ends the process.

    The first module that the command imports sends the signal, and discards the exception.
    """
    (tmp_path / "click.py").write_text(
        "import os, signal\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    signal.sigtimedwait([], 1)\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
        "raise SystemExit('the command continues')\n"
    )
    ended = cli("volume", "list", env={"PYTHONPATH": str(tmp_path)})
    assert (ended.returncode, ended.stderr) == (130, "")


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"BOOTVOL_ENDPOINT": "http://me:secret@127.0.0.1:9/v1.1/t"}, "--endpoint"),
        ({"BOOTVOL_ENDPOINT": "http://me:secret/@127.0.0.1:9/v1.1/t"}, "--endpoint"),
        ({"BOOTVOL_ENDPOINT": "me:secret@127.0.0.1:9/v1.1/t"}, "--endpoint"),
        ({"OS_AUTH_URL": "http://me:secret@127.0.0.1:9/v3", "OS_TOKEN": "t"}, "OS_AUTH_URL"),
    ],
)
def test_no_message_repeats_the_password_in_a_url(env: dict[str, str], name: str) -> None:
    """The command ends with a message without the URL.

    Break: `src/bootvol/cli/login.py`: `if "@" in url:` -> `if not url:`.
    """
    for words in ("list",), ("create", "--size", "1"), ("boot", "1"):
        refused = cli("volume", *words, env={**env, "BOOTVOL_TOKEN": ""})
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"bootvol: {name}"), refused.stderr
        assert "secret" not in refused.stderr + refused.stdout


def test_an_argument_that_is_no_text(daemon: Process) -> None:
    word = b"\xff".decode(errors="surrogateescape")
    for words in (("show", word), ("create", "--size", "1", "--image", word)):
        refused = daemon.cli("volume", *words)
        assert refused.returncode == 1
        assert refused.stderr.startswith("bootvol: ")
