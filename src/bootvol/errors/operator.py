"""Errors of the configuration and of installed plugins."""

from __future__ import annotations

from bootvol.errors.base import BootvolError


class ConfigurationError(BootvolError):
    """The configuration, or the machine under it, prevents the daemon from running."""

    code = "configuration"
    retryable = False
    remedy = "Correct the configuration. Check the file with `bootvol check-config FILE`."

    @classmethod
    def worded(cls, text: str) -> str:
        """Return the text unchanged: a line for each mistake, in the operator's own words."""
        return text


class DefectivePlugin(ConfigurationError):
    """A plugin does not provide the interface of its entry point group."""

    code = "defective-plugin"
    remedy = "Install another version of the plugin, or report the error to its author."
