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


class StoreElsewhere(ConfigurationError):
    """The store of a backend belongs to another host, or the backend's name does.

    :param backend: the backend's name.
    :param host: the other host's name.
    """

    code = "store-elsewhere"

    def __init__(self, backend: str, host: str) -> None:
        super().__init__(
            f"backend {backend!r}: host {host} has this store, or another store under this name,"
            f" on its own disks. If both hosts have the same store, declare it so on both (for a"
            f" file backend: shared = true), or give daemons of one machine one [state] host."
            f" Otherwise give this backend another name"
        )


class DefectivePlugin(ConfigurationError):
    """A plugin does not provide the interface of its entry point group."""

    code = "defective-plugin"
    remedy = "Install another version of the plugin, or report the error to its author."
