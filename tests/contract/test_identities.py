"""Every first-party identity service passes the same suite."""

from pathlib import Path

from bootvol.interfaces import PluginContext
from bootvol.model import Caller
from bootvol.testing.identities import Subject, make_identity_tests
from bootvol_plugins.static import PLUGIN, StaticOptions


def _static(context: PluginContext, _folder: Path) -> Subject:
    tokens = [
        {"token": "Secret-1", "tenant": "one", "user": "ann", "roles": ["admin"]},
        {"token": "Secret-2", "tenant": "two", "user": "bob"},
    ]
    return Subject(
        PLUGIN.factory(StaticOptions.model_validate({"tokens": tokens}), context),
        {
            "Secret-1": Caller("ann", "one", frozenset({"admin"})),
            "Secret-2": Caller("bob", "two"),
        },
    )


TestStatic = make_identity_tests(_static)
