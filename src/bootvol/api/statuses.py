"""The HTTP statuses of errors.  A dialect may choose others (``Faults.status``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bootvol import errors
from bootvol.errors import BootvolError

#: The statuses by class. A class without an entry has the status of its nearest base class.
STATUSES: Final[Mapping[type[BootvolError], int]] = {
    BootvolError: 500,
    errors.InvalidRequest: 400,
    errors.ImportFailed: 400,
    errors.NoFittingBackend: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.ApiVersionUnsupported: 406,
    errors.BodyTooSlow: 408,
    errors.SeveralImages: 409,
    errors.DeviceInUse: 409,
    errors.HoldProtected: 409,
    errors.HostTaken: 409,
    errors.ImageConflict: 409,
    errors.KeyPairExists: 409,
    errors.QosSpecsExist: 409,
    errors.RevertConflict: 409,
    errors.ServerConflict: 409,
    errors.VolumeInUse: 409,
    errors.VolumeTypeAccessUnchanged: 409,
    errors.VolumeTypeExists: 409,
    errors.QuotaExceeded: 413,
    errors.RateLimited: 413,
    errors.WrongMediaType: 415,
    errors.MissingEntity: 422,
    errors.TooManyLogins: 429,
    errors.HeadersTooLarge: 431,
    errors.NoHypervisor: 501,
    errors.NoImageStore: 501,
    errors.NotServed: 501,
    errors.BackendFailed: 503,
    errors.ConverterMissing: 503,
    errors.DatabaseUnavailable: 503,
    errors.ExportFailed: 503,
    errors.HypervisorFailed: 503,
    errors.IdentityFailed: 503,
    errors.IdentityUnavailable: 503,
    errors.ServiceShort: 503,
    errors.SourceFailed: 503,
    errors.TooManyCalls: 503,
}


def status_of(error: BootvolError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
