"""Users and projects of the ``embedded`` identity, for tests."""

from __future__ import annotations

import tomllib
from pathlib import Path

from argon2 import PasswordHasher

from bootvol.interfaces import PluginContext
from bootvol.options import BASE
from bootvol_plugins.embedded.identity import EmbeddedIdentity
from bootvol_plugins.embedded.options import EmbeddedOptions
from tests.daemons import OTHER_TENANT, TENANT

#: Makes hashes quickly.
_QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

PASSWORD = "correct horse battery staple"
BOBS = "bob's own password"
ACCESS_KEY = "ABCDEFGHIJKL"
SECRET_KEY = "secret/key+of=ann"
# The salt is fixed: the hash is in the names of tests, which must not change between runs.
PASSWORD_HASH = _QUICK.hash(PASSWORD, salt=b"of the tests")

#: TOML of two users. Ann is an admin of one project and a member of another, with a password and an
#: access key. Bob is a member of the other project only. The third project has no users.
PEOPLE = f"""\
[identity]
plugin = "embedded"
directory = "identity"

[[identity.projects]]
name = "demo"
id = "{TENANT}"

[[identity.projects]]
name = "other"
id = "{OTHER_TENANT}"

[[identity.projects]]
name = "closed"

[[identity.users]]
name = "ann"
id = "10"
password_hash = "{PASSWORD_HASH}"
roles = {{ demo = ["admin", "member"], other = ["member"] }}

[[identity.users.access_keys]]
key = "{ACCESS_KEY}"
secret_hash = "{_QUICK.hash(SECRET_KEY)}"

[[identity.users]]
name = "bob"
password_hash = "{_QUICK.hash(BOBS)}"
roles = {{ other = ["member"] }}
"""


def options(folder: Path, text: str = PEOPLE) -> EmbeddedOptions:
    """Return the plugin's settings, as the daemon reads them from a configuration in a folder."""
    table = tomllib.loads(text)["identity"]
    del table["plugin"]
    return EmbeddedOptions.model_validate(table, context={BASE: folder})


def identity(context: PluginContext, folder: Path, text: str = PEOPLE) -> EmbeddedIdentity:
    """Return the identity service, made as the daemon makes it."""
    return EmbeddedIdentity(options(folder, text), context)
