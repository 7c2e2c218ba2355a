"""The service's address and the user's token, from the environment of OpenStack's clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final, cast

import attrs

from bootvol.cli.failures import NOT_ALLOWED, CommandFailed
from bootvol.cli.http import exchange
from bootvol.jsons import JsonObject

#: The base URI if the user and the catalog name no other.
ENDPOINT: Final = "http://127.0.0.1:8776/v1.1/demo"
#: The remedy without a token.
LOGIN_WAYS: Final = (
    "set BOOTVOL_TOKEN or give --token; or set OS_AUTH_URL, OS_USERNAME, OS_PASSWORD and"
    " OS_PROJECT_NAME to log in"
)
#: The type of the service in catalogs.
_TYPE: Final = "volume"


@attrs.frozen
class Access:
    """Access to one tenant's part of a service.

    :ivar endpoint: the base URI, ``http://HOST:PORT/v1.1/TENANT``, without a slash at its end.
    :ivar token: the value for ``X-Auth-Token``.
    :ivar authorities: see :func:`bootvol.cli.http.exchange`.
    :ivar renewable: True if a new login gives another token.
    """

    endpoint: str
    token: str = attrs.field(repr=False)
    authorities: str = ""
    renewable: bool = False


def access(endpoint: str, token: str, environment: Mapping[str, str]) -> Access:
    """Return the access to the service; log in if necessary.

    :param endpoint: the base URI; if empty, the catalog's, or else the default one.
    :param token: the token; if empty, log in by ``OS_AUTH_URL`` and the other ``OS_...`` variables.
    :raises CommandFailed: if the login fails, if ``environment`` lacks a variable, or if a URL
        contains a user or password.
    """
    for name, url in (
        ("--endpoint or BOOTVOL_ENDPOINT", endpoint),
        ("OS_AUTH_URL", environment.get("OS_AUTH_URL", "")),
    ):
        if "@" in url:
            # No message repeats the URL: the URL may contain a password.
            raise CommandFailed(
                f"{name}: bootvol takes no user and password from a URL; set OS_USERNAME and"
                " OS_PASSWORD, and write an @ in a path as %40"
            )
    authorities = environment.get("OS_CACERT", "")
    if token or not environment.get("OS_AUTH_URL"):
        return Access((endpoint or ENDPOINT).rstrip("/"), token, authorities)
    try:
        answer, headers = exchange(
            "POST", f"{_version_3(environment)}/auth/tokens", {}, _body(environment), authorities
        )
    except CommandFailed as error:
        if error.status != HTTPStatus.MULTIPLE_CHOICES:
            raise
        raise CommandFailed(
            "OS_AUTH_URL leads to a list of versions, not to the identity service; that of bootvol"
            " ends in /identity"
        ) from None
    try:
        found = endpoint or _endpoint(cast("JsonObject", answer)["token"]["catalog"], environment)
        return Access(found.rstrip("/"), headers["X-Subject-Token"] or "", authorities, True)
    except (KeyError, TypeError):
        raise CommandFailed(
            "OS_AUTH_URL does not lead to an identity service of version 3"
        ) from None


def _version_3(environment: Mapping[str, str]) -> str:
    url = environment["OS_AUTH_URL"].rstrip("/")
    if url.endswith("/v2.0"):
        raise CommandFailed("OS_AUTH_URL must be the URL of version 3 of the identity service")
    return url if url.endswith("/v3") else f"{url}/v3"


def _body(environment: Mapping[str, str]) -> JsonObject:
    """Return the request for a token."""
    if token := environment.get("OS_TOKEN"):
        identity: JsonObject = {"methods": ["token"], "token": {"id": token}}
    else:
        user = _named(environment, "OS_USER", "OS_USERNAME", "OS_USER_NAME")
        password = environment.get("OS_PASSWORD")
        if user is None or password is None:
            lacking = "OS_USERNAME" if user is None else "OS_PASSWORD"
            raise CommandFailed(f"{lacking} is not set: set the variable to log in", NOT_ALLOWED)
        identity = {"methods": ["password"], "password": {"user": {**user, "password": password}}}
    project = _named(environment, "OS_PROJECT", "OS_PROJECT_NAME", "OS_TENANT_NAME", "OS_TENANT_ID")
    if project is None:
        raise CommandFailed("OS_PROJECT_NAME is not set: set the variable to log in", NOT_ALLOWED)
    return {"auth": {"identity": identity, "scope": {"project": project}}}


def _named(environment: Mapping[str, str], prefix: str, *others: str) -> JsonObject | None:
    """Return the user or project of the environment, by id, or by name and domain."""
    for variable in (f"{prefix}_ID", *others):
        if value := environment.get(variable):
            if variable.endswith("_ID"):
                return {"id": value}
            domain = {"id": environment.get(f"{prefix}_DOMAIN_ID") or "default"}
            if name := environment.get(f"{prefix}_DOMAIN_NAME"):
                domain = {"name": name}
            return {"name": value, "domain": domain}
    return None


def _endpoint(catalog: Iterable[JsonObject], environment: Mapping[str, str]) -> str:
    region = environment.get("OS_REGION_NAME")
    for service in catalog:
        for each in service["endpoints"]:
            fits = region in (None, "", each["region"]) and each["interface"] == "public"
            if service["type"] == _TYPE and fits:
                return str(each["url"])
    where = f" in {region}" if region else ""
    raise CommandFailed(f"the catalog has no endpoint of the type {_TYPE}{where}")
