"""Errors of the configuration and of installed plugins."""

from __future__ import annotations

from bootvol.errors.base import BootvolError


class ConfigurationError(BootvolError):
    """The configuration, or the machine under it, prevents the daemon from running."""

    code = "configuration"
    retryable = False
    remedy = "Correct the configuration; `bootvol check-config FILE` says when it is right."


class DefectivePlugin(ConfigurationError):
    """A plugin does not provide the interface of its entry point group."""

    code = "defective-plugin"
    remedy = "Install another version of the plugin, or tell its author."
