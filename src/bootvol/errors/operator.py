"""What the operator got wrong."""

from __future__ import annotations

from bootvol.errors.base import BootvolError


class ConfigurationError(BootvolError):
    """The configuration, or the machine under it, does not let the daemon run."""

    code = "configuration"
    retryable = False
    remedy = "Correct the configuration; `bootvol check-config FILE` says when it is right."


class DefectivePlugin(ConfigurationError):
    """A plugin does not provide the interface that it is named for."""

    code = "defective-plugin"
    remedy = "Install another version of the plugin, or tell its author."
