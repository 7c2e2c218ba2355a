"""Lists the configured plugins that can be checked, and makes them for the suites."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bootvol import plugins, settings
from bootvol.interfaces import PluginContext
from bootvol.settings import PluginSettings, Settings

# pytest collects the suites, so these variables tell the suites which plugin to check.
CONFIG: Final = "BOOTVOL_CHECK_CONFIG"
KIND: Final = "BOOTVOL_CHECK_KIND"
NAME: Final = "BOOTVOL_CHECK_NAME"
IMAGE: Final = "BOOTVOL_CHECK_IMAGE"
TOKEN: Final = "BOOTVOL_TOKEN"  # noqa: S105 - a name


def by_kind(configured: Settings) -> Mapping[str, Mapping[str, PluginSettings]]:
    """Return the plugins to check, by kind and name. The one identity is called ``identity``."""
    return {
        "backend": {each.name: each for each in configured.backends},
        "source": {each.name: each for each in configured.sources},
        "identity": {"identity": configured.identity},
    }


def build(context: PluginContext) -> Any:
    """Make the plugin that the environment names, as the operator has configured it."""
    configured = by_kind(settings.load(Path(os.environ[CONFIG])))
    mine = configured[os.environ[KIND]][os.environ[NAME]]
    return plugins.build(mine.descriptor, mine.options, context)


def build_again(context: PluginContext, _folder: Path) -> Any:
    """Make the same plugin in another process."""
    return build(context)
