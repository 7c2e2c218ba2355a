"""Errors of log-ins, tokens and rights."""

from __future__ import annotations

from bootvol.errors.base import BootvolError


class Unauthorized(BootvolError):
    """The token is missing or invalid."""

    code = "unauthorized"
    retryable = False
    remedy = "Send a valid token in X-Auth-Token."
    default_message = "This server could not verify that you are authorized to access it."


class LoginFailed(Unauthorized):
    """The credentials are wrong, or give no access to the requested project."""

    code = "login-failed"
    remedy = "Check the name, the password or key, and the project; then log in again."
    default_message = "The request you have made requires authentication."


class TooManyLogins(BootvolError):
    """Too many logins have failed, or are running at once.

    :param retry_after: seconds until the next try, more than 0.
    """

    code = "too-many-logins"
    remedy = "Wait for the time in Retry-After, then log in again."
    default_message = "Too many logins; try again later."

    def __init__(self, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class IdentityFailed(BootvolError):
    """The identity service cannot verify its input, or cannot store its state."""

    code = "identity-failed"
    remedy = "Ask the operator to check the daemon's log, and the disk with the daemon's state."
    default_message = "The identity service failed."


class TokenWithoutProject(Unauthorized):
    """The token is valid, but not for a project: for a domain, say, or unscoped."""

    code = "token-without-project"
    remedy = "Log in for a project, and send the new token."
    default_message = "This token is not for a project; log in for a project."


class IdentityUnavailable(BootvolError):
    """The service that issued a token cannot be asked about the token for now.

    :param retry_after: seconds until the next try, more than 0.
    """

    code = "identity-unavailable"
    retryable = True
    remedy = (
        "Wait for the time in Retry-After. If the error persists, ask the operator to read the log."
    )
    default_message = "Tokens cannot be verified for now; try again later."

    def __init__(self, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class Forbidden(BootvolError):
    """The caller lacks the right for the call."""

    code = "forbidden"
    retryable = False
    remedy = "Ask the operator for a role with this right."
    default_message = "Access was denied to this resource."
