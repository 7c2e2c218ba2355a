"""The configuration: defaults, and messages about mistakes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bootvol import passwords, settings, tables
from bootvol.errors import ConfigurationError
from bootvol_plugins.glance.options import GlanceOptions

ROOT = Path(__file__).parents[2]

LEAST = """
[[identity.tokens]]
token = "secret-token"
tenant = "t"
user = "u"

[[backends]]
name = "b"
plugin = "file"
directory = "volumes"

[[sources]]
name = "s"
plugin = "directory"
directory = "/srv/images"
"""

HTTP = LEAST + '[[sources]]\nname = "w"\nplugin = "http"\nallow = ["https://x/"]\n'
TLS = '[exports]\nby = "tls"\nhost = "h"\ncredentials = "pki"\n'


def load(folder: Path, text: str) -> settings.Settings:
    """Load a configuration with a text."""
    path = folder / "twistd.conf"
    path.write_text(text)
    return settings.load(path)


def test_the_defaults(tmp_path: Path) -> None:
    found = load(tmp_path, LEAST)
    assert found.api.listen == ["tcp:8776:interface=127.0.0.1"]
    assert found.availability_zone == "nova"
    assert found.database.database == str(tmp_path / "var" / "bootvol.db")
    assert found.state.directory == tmp_path / "var"
    assert (found.quota.volumes, found.quota.gigabytes, found.quota.snapshots) == (10, 1000, 10)
    assert found.backends[0].options.model_dump() == {
        "directory": tmp_path / "volumes",
        "mounted": False,
        "shared": False,
    }
    assert found.sources[0].options.model_dump(exclude_defaults=True) == {
        "directory": Path("/srv/images")
    }


def test_the_file_of_the_repository_holds_every_default(tmp_path: Path) -> None:
    shipped = (ROOT / "twistd.conf").read_text()
    given = load(tmp_path, shipped)
    least = load(tmp_path, LEAST)
    for part in ("api", "state", "quota", "imports", "availability_zone"):
        assert getattr(given, part) == getattr(least, part)
    tables = tomllib.loads(shipped)
    for part in ("api", "state", "quota", "imports"):
        fields = type(getattr(least, part)).model_fields
        without = {name for name, field in fields.items() if field.default is None}
        assert set(tables[part]) == set(fields) - without, part
        for name in without:
            assert f"\n# {name} = " in shown_table(shipped, part), name


def shown_table(text: str, name: str) -> str:
    """Return a table as written in the file, with comments."""
    return text.partition(f"\n[{name}]\n")[2].partition("\n[")[0]


def test_a_byte_order_mark(tmp_path: Path) -> None:
    assert load(tmp_path, f"\ufeff{LEAST}").availability_zone == "nova"


def test_exports(tmp_path: Path) -> None:
    assert load(tmp_path, LEAST).exports is None
    unix = load(tmp_path, '[exports]\nby = "unix"\n' + LEAST).exports
    assert unix == tables.ExportsTable(by="unix", directory=tmp_path / "var" / "exports")
    tls = load(tmp_path, TLS + LEAST).exports
    assert tls == tables.TlsExportsTable(
        by="tls",
        directory=tmp_path / "var" / "exports",
        host="h",
        ports=[10809, 11808],
        credentials=tmp_path / "pki",
    )


def test_the_file_of_the_repository_explains_exports(tmp_path: Path) -> None:
    comment = (ROOT / "twistd.conf").read_text().partition("\n# [exports]\n")[2]
    table = "".join(
        line.removeprefix("# ") for line in comment.partition("\n\n")[0].splitlines(True)
    )
    shown = load(tmp_path, f"[exports]\n{table}\n{LEAST}").exports
    assert isinstance(shown, tables.TlsExportsTable)
    assert shown.model_fields_set == set(tables.TlsExportsTable.model_fields)
    assert shown.directory == tmp_path / "var" / "exports"
    assert shown.ports == tables.TlsExportsTable.model_fields["ports"].default


def test_the_file_of_the_repository_explains_glance(tmp_path: Path) -> None:
    comment = (ROOT / "twistd.conf").read_text().partition('Plugin "glance":')[2]
    table = "".join(
        line.removeprefix("# ") for line in comment.partition("#\n")[2].splitlines(True)
    )
    (tmp_path / "password").write_text("secret\n")
    table = table.replace("file:/etc/bootvol/keystone-password", "file:password")
    options = load(tmp_path, f"{LEAST}\n{table}").sources[-1].options
    assert isinstance(options, GlanceOptions)
    assert options.endpoints == ["https://glance.example.org:9292"]
    assert options.keystone.password is not None
    assert options.keystone.password.get_secret_value() == "secret"
    assert "'secret'" not in repr(options)
    for key in set(GlanceOptions.model_fields) - {"keystone"}:
        assert f"\n#   {key} " in comment


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("endpoints = []", "endpoints"),
        ('endpoints = ["glance"]', "endpoints"),
        ('endpoints = ["http://u:secret@glance"]', r"endpoints: \['http://\(hidden\)@glance'\]"),
        ('endpoints = ["http://glance?x=1"]', "query"),
        ('endpoints = ["http://glance"]\ntimeout = 0', "timeout"),
    ],
)
def test_mistakes_with_glance(tmp_path: Path, line: str, complaint: str) -> None:
    keystone = '[sources.keystone]\nurl = "http://k"\nusername = "u"\npassword = "secret"\n'
    table = f'[[sources]]\nname = "g"\nplugin = "glance"\n{line}\n{keystone}'
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        load(tmp_path, f"{LEAST}\n{table}")
    assert "secret" not in str(caught.value)


def test_limits(tmp_path: Path) -> None:
    found = load(tmp_path, LEAST)
    assert found.imports.bandwidth_mib is None
    for each in (*found.backends, *found.sources):
        assert (each.concurrent, each.bandwidth_mib) == (None, None)
    limited = LEAST.replace('name = "b"', 'name = "b"\nconcurrent = 3').replace(
        'name = "s"', 'name = "s"\nconcurrent = 1\nbandwidth_mib = 40'
    )
    found = load(tmp_path, "[imports]\nbandwidth_mib = 0.5\n" + limited)
    assert found.imports.bandwidth_mib == 0.5
    assert (found.backends[0].concurrent, found.backends[0].bandwidth_mib) == (3, None)
    assert (found.sources[0].concurrent, found.sources[0].bandwidth_mib) == (1, 40)
    assert found.sources[0].options.model_dump(exclude_defaults=True) == {
        "directory": Path("/srv/images")
    }


def test_databases(tmp_path: Path) -> None:
    found = load(tmp_path, '[state]\nurl = "sqlite:////elsewhere/x.db"\n' + LEAST)
    assert found.database.database == "/elsewhere/x.db"
    found = load(tmp_path, '[state]\nurl = "postgresql://me@db/bootvol"\n' + LEAST)
    assert found.database.drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x =", "is not valid TOML: Invalid value (at end of document)"),
        ("", "backends: is missing. Add the key"),
        ('[quota]\nvolumes = "ten"\n' + LEAST, "quota.volumes: 'ten': Input should be a valid int"),
        ("[quota]\nvolumes = -2\n" + LEAST, "quota.volumes: -2: Input should be greater than"),
        ("[quota]\nvolumes = true\n" + LEAST, "quota.volumes: True: Input should be a valid int"),
        (
            "[quota]\nvolume = 1\n" + LEAST,
            "quota.volume: the key is unknown. Remove the key, or correct its name; twistd.conf",
        ),
        ("[imports]\nspool_gib = 0\n" + LEAST, "imports.spool_gib: 0: Input should be greater"),
        ("[other]\n" + LEAST, "other: the key is unknown. Remove the key, or use one of:"),
        ('[api]\nlisten = ["nothing"]\n' + LEAST, "api.listen: ['nothing']: 'nothing' is no Tw"),
        ('[api]\nlisten = ["tcp:x"]\n' + LEAST, "'tcp:x' is no Twisted server endpoint"),
        ('[api]\npublic_url = "x.org"\n' + LEAST, "api.public_url: 'x.org': this is not an http"),
        (
            '[api]\npublic_url = "http://x/"\n' + LEAST,
            "'http://x/': this is not an http",
        ),
        *(
            (f'[api]\npublic_url = "{url}"\n' + LEAST, f"api.public_url: '{url}': this ")
            for url in (
                "http://x?a=b",
                "http://x#b",
                "http://x:99999",
                "http://:80",
                "http://[::1",
                "http://0.0.0.0:8776",
                "http://[::]",
            )
        ),
        (
            '[api]\npublic_url = "http://me:secret-token@x"\n' + LEAST,
            "api.public_url: 'http://(hidden)@x': this ",
        ),
        (
            HTTP.replace("https://x/", "https://me:secret-token/@x/"),
            "sources[1].allow: ['https://(hidden)@x/']: 'https://(hidden)@x/' has a form",
        ),
        (
            HTTP.replace("https://x/", "s3://me:secret-token@x/"),
            "sources[1].allow: ['s3://(hidden)@x/']: 's3://(hidden)@x/' ",
        ),
        (HTTP.replace("https://x/", "https://x/?a=b"), "'https://x/?a=b' has a query, which would"),
        ("[api]\nlisten = []\n" + LEAST, "api.listen: []: List should have at least 1 item"),
        (
            '[state]\nurl = "mysql://x"\n' + LEAST,
            "state.url: (hidden): the database must be",
        ),
        ('[state]\nurl = "x"\n' + LEAST, "state.url: (hidden): this is not a database URL"),
        (
            '[[rate_limits]]\nverb = "GET"\nvalue = 0\nunit = "DAY"\n' + LEAST,
            "rate_limits[0].value: 0: Input should be greater than",
        ),
        (
            '[[rate_limits]]\nverb = "get"\nvalue = 1\nunit = "DAY"\n' + LEAST,
            "rate_limits[0].verb: 'get': Input should be 'GET', 'POST'",
        ),
        (
            '[[rate_limits]]\nverb = "GET"\nvalue = 1\nunit = "WEEK"\n' + LEAST,
            "rate_limits[0].unit: 'WEEK': Input should be 'SECOND'",
        ),
        (
            '[[rate_limits]]\nverb = "GET"\nvalue = 1\nunit = "DAY"\nregex = "("\n' + LEAST,
            "rate_limits[0].regex: '(': this is not a regular expression: missing )",
        ),
        (
            LEAST.replace('"file"', '"floppy"'),
            "backends[0].plugin: 'floppy': the plugin is not installed; installed plugins: file",
        ),
        (
            LEAST.replace('directory = "volumes"', ""),
            "backends[0].directory: is missing. Add the key",
        ),
        (
            LEAST.replace('directory = "volumes"', 'directory = ""'),
            "backends[0].directory: '': this is not a path",
        ),
        (
            LEAST.replace('name = "b"', 'name = "b/"'),
            "backends[0].name: 'b/': String should match pattern",
        ),
        (
            LEAST.replace('name = "b"', 'name = "b"\nconcurrent = 0'),
            "backends[0].concurrent: 0: Input should be greater than or equal to 1",
        ),
        (
            LEAST.replace('name = "s"', 'name = "s"\nconcurrent = true'),
            "sources[0].concurrent: True: Input should be a valid integer",
        ),
        (
            LEAST.replace('name = "s"', 'name = "s"\nbandwidth_mib = 0'),
            "sources[0].bandwidth_mib: 0: Input should be greater than 0",
        ),
        (
            LEAST.replace('name = "b"', 'name = "b"\nbandwidth_mib = 1'),
            "backends[0].bandwidth_mib: the key is unknown",
        ),
        ("[identity]\nconcurrent = 1\n" + LEAST, "identity.concurrent: the key is unknown"),
        ("[imports]\nbandwidth_mib = inf\n" + LEAST, "imports.bandwidth_mib: inf: Input should"),
        ("[imports]\nbandwidth_mib = nan\n" + LEAST, "imports.bandwidth_mib: nan: Input should"),
        ("[exports]\n" + LEAST, "exports.by: is missing. Add the key"),
        ('[exports]\nby = "ssh"\n' + LEAST, "exports.by: 'ssh': Input should be 'unix' or 'tls'"),
        (
            '[exports]\nby = "tls"\nhost = "h"\n' + LEAST,
            "exports.credentials: is missing. Add the key",
        ),
        ('[exports]\nby = "unix"\nhost = "h"\n' + LEAST, "exports.host: the key is unknown"),
        (TLS + "ports = [2, 1]\n" + LEAST, "exports.ports: [2, 1]: the first port must not"),
        (TLS + "ports = [1]\n" + LEAST, "exports.ports: [1]: List should have at least 2 items"),
        (TLS + "ports = [0, 9]\n" + LEAST, "exports.ports[0]: 0: Input should be greater than"),
        (
            TLS.replace('"h"', '"0.0.0.0"') + LEAST,
            "exports.host: '0.0.0.0': clients cannot connect to this; name one address",
        ),
        (
            TLS.replace('"h"', '"[::1]"') + LEAST,
            "exports.host: '[::1]': String should match pattern",
        ),
        (
            LEAST.replace("secret-token", ""),
            "identity.tokens[0].token: (hidden): the value is empty",
        ),
        (LEAST.replace("secret-token", "file:/dev/null"), "is not a regular file"),
        (LEAST.replace('"secret-token"', "7"), "identity.tokens[0].token: (hidden): Input"),
        (LEAST + LEAST[LEAST.index("[[sources") :], "the name 's' is given twice"),
        (
            LEAST + '[[sources]]\nname = "w"\nplugin = "http"\nallow = ["ftp://x/"]\n',
            "sources[1].allow: ['ftp://x/']: 'ftp://x/' is not an http or https URL",
        ),
        (HTTP + 'checksums = "{name}.sha256"\n', "the only placeholder is {image}, for the image"),
        (HTTP + 'checksums = "{image.sha256"\n', "the only placeholder is {image}, for the image"),
        (HTTP + 'checksums = "None"\n', "sources[1].checksums: 'None': write \"none\" in lower"),
        (HTTP + 'checksums = " "\n', "sources[1].checksums: ' ': this is not the name of a file"),
        *(
            (HTTP + f'checksums = "{name}"\n', "name a list with sha512, sha384, sha256, sha224,")
            for name in ("{image}.b2sum", "BLAKE3SUMS", "{image}.sha3-256", "{image}.xxh64")
        ),
        (HTTP + 'checksums = ".."\n', "sources[1].checksums: '..': this is not the name of a"),
        (
            HTTP + 'networks = ["10.0.0.1/8"]\n',
            "sources[1].networks: ['10.0.0.1/8']: 10.0.0.1/8 has host bits set. Correct",
        ),
        (HTTP + 'networks = ["inside"]\n', "'inside' does not appear to be an IPv4 or IPv6 net"),
        (
            HTTP + 'networks = ["::ffff:10.0.0.0/104"]\n',
            "is an IPv4 network: write the network in IPv4 form",
        ),
        (
            HTTP + 'proxy = "http://me:secret-token@proxy:3128"\n',
            "sources[1]: (hidden): proxy has credentials, which are not supported",
        ),
        (HTTP + 'proxy = "proxy:3128"\n', "proxy is not http://HOST:PORT. Correct the value"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert told in message
    assert message.startswith(str(tmp_path / "twistd.conf"))
    assert "secret-token" not in message


def test_the_embedded_identity_as_it_is_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = (
        (ROOT / "docs" / "identity.md").read_text().partition("```toml\n")[2].partition("```")[0]
    )
    rest = LEAST[LEAST.index("[[backends]]") :]
    with pytest.raises(ConfigurationError, match="variable ANNS_SECRET_HASH is not set") as told:
        load(tmp_path, shown + rest)
    assert "identity.users[0].access_keys[0].secret_hash: (hidden)" in str(told.value)
    monkeypatch.setenv("ANNS_SECRET_HASH", passwords.hash_password("x"))
    found = load(tmp_path, shown + rest).identity.options.model_dump()
    assert found["directory"] == tmp_path / "var" / "identity"
    assert (found["key_file"], found["token_hours"]) == (None, 12.0)
    with pytest.raises(ConfigurationError) as told:
        load(tmp_path, shown.replace("$argon2id", "plain-secret") + rest)
    assert "identity.users[0].password_hash: (hidden): this is not a hash" in str(told.value)
    assert "plain-secret" not in str(told.value)


def test_an_empty_file_of_a_secret(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ConfigurationError, match=r"\(hidden\): the file token is empty"):
        load(tmp_path, LEAST.replace("secret-token", "file:token"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.conf: cannot be read: No such file"):
        settings.load(tmp_path / "nothing.conf")
