"""The catalog of services for clients with a token (specification, section 1.1)."""

from __future__ import annotations

from typing import Final

import attrs
from typing_extensions import TypedDict

from bootvol.login import Named


@attrs.frozen
class _Service:
    """A service, with its paths below the API's root.

    :ivar name: the name for old clients; newer clients look for the ``type``.
    :ivar v2: the path in a catalog of identity v2.0.
    :ivar v3: the path in a catalog of identity v3.
    :ivar of_a_project: whether the service needs a token for a project.
    """

    name: str
    type: str
    version: str
    v2: str
    v3: str
    of_a_project: bool = True


class EarlierEndpoint(TypedDict):
    """The endpoint of a service, in the form of identity v2.0."""

    tenantId: str
    publicURL: str
    region: str
    versionId: str
    versionInfo: str
    versionList: str


class EarlierServiceShown(TypedDict):
    """A service, in the form of identity v2.0."""

    name: str
    type: str
    endpoints: list[EarlierEndpoint]


class Endpoint(TypedDict):
    """The endpoint of a service."""

    id: str
    interface: str
    region: str
    region_id: str
    url: str


class ServiceShown(TypedDict):
    """A service."""

    id: str
    name: str
    type: str
    endpoints: list[Endpoint]


_VOLUMES: Final = "/v1.1/{tenant}"
_CINDER: Final = "/volume/v3/{tenant}"
_SERVICES: Final = (
    # Clients that log in by v3 need the later version, with uuids.
    _Service("Compute", "compute", "1.1", _VOLUMES, "/v2/{tenant}"),
    _Service("Block Storage", "volume", "1.1", _VOLUMES, _VOLUMES),
    _Service("Block Storage v3", "volumev3", "3.0", _CINDER, _CINDER),
    _Service("Block Storage v3", "block-storage", "3.0", _CINDER, _CINDER),
    _Service("Image", "image", "2.0", "/image", "/image"),
    _Service("Identity", "identity", "2.0", "/v2.0/", "/identity", of_a_project=False),
)


@attrs.frozen
class Catalog:
    """The list of services.

    :ivar region: the region of every endpoint.
    """

    region: str

    def v2(self, url: str, project: Named | None) -> list[EarlierServiceShown]:
        """Return the catalog in the form of identity v2.0.

        :param url: URL of the API's root.
        :param project: the project of the endpoints; None leaves out services that need a project.
        """
        return [
            {
                "name": each.name,
                "type": each.type,
                "endpoints": [
                    {
                        "tenantId": project.id if project else "",
                        "publicURL": url + _filled(each.v2, project),
                        "region": self.region,
                        "versionId": each.version,
                        "versionInfo": url + each.v2.partition("{tenant}")[0],
                        "versionList": url,
                    }
                ],
            }
            for each in _shown(project)
        ]

    def v3(self, url: str, project: Named | None) -> list[ServiceShown]:
        """Return the catalog in the form of identity v3; the parameters are :meth:`v2`'s."""
        return [
            {
                "id": each.type,
                "name": each.name,
                "type": each.type,
                "endpoints": [
                    {
                        "id": f"{each.type}-public",
                        "interface": "public",
                        "region": self.region,
                        "region_id": self.region,
                        "url": url + _filled(each.v3, project),
                    }
                ],
            }
            for each in _shown(project)
        ]


def _shown(project: Named | None) -> list[_Service]:
    return [each for each in _SERVICES if project is not None or not each.of_a_project]


def _filled(path: str, project: Named | None) -> str:
    return path.format(tenant=project.id) if project else path
