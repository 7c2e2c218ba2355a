"""The form of routes to volumes, as Cinder's clients and os-brick read them."""

from __future__ import annotations

from collections.abc import Mapping

from bootvol.jsons import JsonObject
from bootvol.model import Hold, LocalRoute, Route


def nested(
    route: Route, volume: str, mode: str | None, limits: Mapping[str, str] | None
) -> JsonObject:
    """Return a route in the form of ``os-initialize_connection``.

    :param volume: the volume's uuid.
    :param mode: ``rw`` or ``ro``; None means the same as ``rw``.
    :param limits: the limits of speed that the host must enforce, or None.
    """
    kind, data = _known(route)
    data |= {
        "volume_id": volume,
        "qos_specs": None if limits is None else dict(limits),
        "access_mode": mode or "rw",
        "encrypted": False,
        "cacheable": False,
        "enforce_multipath": False,
    }
    return {"driver_volume_type": kind, "data": data, "enforce_multipath": False}


def flat(route: Route, hold: Hold) -> JsonObject:
    """Return a route in the form of an attachment."""
    whole = nested(route, hold.volume_uuid, hold.mode, hold.limits)
    return {
        **whole["data"],
        "driver_volume_type": whole["driver_volume_type"],
        "attachment_id": hold.uuid,
    }


def _known(route: Route) -> tuple[str, JsonObject]:
    """Return the name that os-brick knows a kind of route by, and what os-brick needs."""
    if isinstance(route, LocalRoute):
        return "local", {"device_path": route.path}
    data: JsonObject = {
        "name": route.place,
        "hosts": [host for host, _ in route.monitors],
        "ports": [str(port) for _, port in route.monitors],
        "cluster_name": route.cluster,
        "auth_enabled": True,
        "auth_username": route.user,
        "secret_type": "ceph",
        "secret_uuid": route.secret,
        "discard": True,
    }
    if route.keyring is not None:
        data["keyring"] = route.keyring
    return "rbd", data
