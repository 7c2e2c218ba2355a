"""The rights of callers: every route of the API, with every caller, and the expected status.

A route without a row fails the test, so a new route needs its rights. Requests name objects that do
not exist, and bodies are empty objects. So a caller with the right gets 404, 422 or the like (501:
no hypervisor), and nothing changes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest
import pytest_twisted
from argon2 import PasswordHasher
from pytest_twisted import ensureDeferred

from bootvol_plugins.embedded.tokens import Tokens
from tests.daemons import OTHER_TENANT, TENANT, Running

# The request, then the statuses: without a token; with an expired token; with a token of another
# tenant's admin; with a token of this tenant, for a user with a meaningless role, a reader, a
# member, and an admin. Paths without a slash at the start are below /v1.1/TENANT, and below
# /v2/TENANT.
TABLE = """
GET    /                                                200 200 200 200 200 200 200
GET    /v1.1                                            200 200 200 200 200 200 200
GET    /v1.1/                                           200 200 200 200 200 200 200
GET    /v1                                              200 200 200 200 200 200 200
GET    /v1/                                             200 200 200 200 200 200 200
GET    /v2                                              200 200 200 200 200 200 200
GET    /v2/                                             200 200 200 200 200 200 200
GET    /openapi.json                                    200 200 200 200 200 200 200
GET    /identity/openapi.json                           200 200 200 200 200 200 200
GET    /image/openapi.json                              200 200 200 200 200 200 200

GET    os-volumes                                       401 401 400 403 200 200 200
GET    os-volumes/detail                                401 401 400 403 200 200 200
POST   os-volumes                                       401 401 400 403 403 422 422
GET    os-volumes/9                                     401 401 400 403 404 404 404
DELETE os-volumes/9                                     401 401 400 403 403 404 404
GET    os-volumes/9/error                               401 401 400 403 404 404 404
GET    os-volumes/9/connection                          401 401 400 403 403 403 404

GET    hp-bootable-volumes                              401 401 400 403 200 200 200
GET    hp-bootable-volumes/9                            401 401 400 403 404 404 404
GET    hp-bootable-volumes/9/import                     401 401 400 403 404 404 404
GET    golden-volumes                                   401 401 400 403 403 403 200

GET    os-snapshots                                     401 401 400 403 200 200 200
GET    os-snapshots/detail                              401 401 400 403 200 200 200
POST   os-snapshots                                     401 401 400 403 403 422 422
GET    os-snapshots/9                                   401 401 400 403 404 404 404
DELETE os-snapshots/9                                   401 401 400 403 403 404 404
GET    os-snapshots/9/error                             401 401 400 403 404 404 404

GET    servers/9/os-volume_attachments                  401 401 400 403 200 200 200
POST   servers/9/os-volume_attachments                  401 401 400 403 403 422 422
GET    servers/9/os-volume_attachments/9                401 401 400 403 404 404 404
PUT    servers/9/os-volume_attachments/9                401 401 400 403 403 400 400
DELETE servers/9/os-volume_attachments/9                401 401 400 403 403 404 404

POST   os-volumes_boot                                  401 401 400 403 403 422 422
POST   servers                                          401 401 400 403 403 422 422
GET    servers                                          401 401 400 403 501 501 501
GET    servers/detail                                   401 401 400 403 501 501 501
GET    servers/9                                        401 401 400 403 501 501 501
PUT    servers/9                                        401 401 400 403 403 422 422
GET    servers/9/metadata                               401 401 400 403 501 501 501
POST   servers/9/metadata                               401 401 400 403 403 422 422
PUT    servers/9/metadata                               401 401 400 403 403 422 422
GET    servers/9/metadata/k                             401 401 400 403 501 501 501
PUT    servers/9/metadata/k                             401 401 400 403 403 422 422
DELETE servers/9/metadata/k                             401 401 400 403 403 501 501
DELETE servers/9                                        401 401 400 403 403 501 501
POST   servers/9/action                                 401 401 400 403 403 422 422
GET    flavors                                          401 401 400 403 200 200 200
GET    flavors/detail                                   401 401 400 403 200 200 200
GET    flavors/9                                        401 401 400 403 404 404 404
GET    flavors/9/os-extra_specs                         401 401 400 403 404 404 404
GET    flavors/9/os-extra_specs/k                       401 401 400 403 404 404 404
GET    os-availability-zone                             401 401 400 403 200 200 200
GET    os-keypairs                                      401 401 400 403 200 200 200
POST   os-keypairs                                      401 401 400 403 403 422 422
GET    os-keypairs/none                                 401 401 400 403 404 404 404
DELETE os-keypairs/none                                 401 401 400 403 403 404 404

GET    os-volume-types                                  401 401 400 403 200 200 200
POST   os-volume-types                                  401 401 400 403 403 403 422
GET    os-volume-types/9                                401 401 400 403 404 404 404
DELETE os-volume-types/9                                401 401 400 403 403 403 404
GET    os-volume-types/9/extra_specs                    401 401 400 403 404 404 404
POST   os-volume-types/9/extra_specs                    401 401 400 403 403 403 422
GET    os-volume-types/9/extra_specs/k                  401 401 400 403 404 404 404
PUT    os-volume-types/9/extra_specs/k                  401 401 400 403 403 403 400
DELETE os-volume-types/9/extra_specs/k                  401 401 400 403 403 403 404

GET    volumes                                          401 401 400 403 200 200 200
GET    /v1/{tenant}/volumes                             401 401 400 403 200 200 200
GET    volumes/detail                                   401 401 400 403 200 200 200
GET    /v1/{tenant}/volumes/detail                      401 401 400 403 200 200 200
POST   volumes                                          401 401 400 403 403 422 422
POST   /v1/{tenant}/volumes                             401 401 400 403 403 422 422
GET    volumes/9                                        401 401 400 403 404 404 404
GET    /v1/{tenant}/volumes/9                           401 401 400 403 404 404 404
PUT    volumes/9                                        401 401 400 403 403 422 422
PUT    /v1/{tenant}/volumes/9                           401 401 400 403 403 422 422
DELETE volumes/9                                        401 401 400 403 403 404 404
DELETE /v1/{tenant}/volumes/9                           401 401 400 403 403 404 404
GET    snapshots                                        401 401 400 403 200 200 200
GET    /v1/{tenant}/snapshots                           401 401 400 403 200 200 200
GET    snapshots/detail                                 401 401 400 403 200 200 200
GET    /v1/{tenant}/snapshots/detail                    401 401 400 403 200 200 200
POST   snapshots                                        401 401 400 403 403 422 422
POST   /v1/{tenant}/snapshots                           401 401 400 403 403 422 422
GET    snapshots/9                                      401 401 400 403 404 404 404
GET    /v1/{tenant}/snapshots/9                         401 401 400 403 404 404 404
PUT    snapshots/9                                      401 401 400 403 403 422 422
PUT    /v1/{tenant}/snapshots/9                         401 401 400 403 403 422 422
DELETE snapshots/9                                      401 401 400 403 403 404 404
DELETE /v1/{tenant}/snapshots/9                         401 401 400 403 403 404 404
GET    types                                            401 401 400 403 200 200 200
GET    /v1/{tenant}/types                               401 401 400 403 200 200 200
GET    types/9                                          401 401 400 403 404 404 404
GET    /v1/{tenant}/types/9                             401 401 400 403 404 404 404

GET    os-quota-sets/{tenant}                           401 401 400 403 200 200 200
GET    os-quota-sets/{other}                            401 401 400 403 403 403 200
GET    os-quota-sets/{tenant}/defaults                  401 401 400 403 200 200 200
PUT    os-quota-sets/{tenant}                           401 401 400 403 403 403 422
PUT    os-quota-sets/{other}                            401 401 400 403 403 403 422
GET    limits                                           401 401 400 403 200 200 200
GET    extensions                                       401 401 400 403 200 200 200
GET    extensions/none                                  401 401 400 403 404 404 404

GET    images                                           401 401 400 403 200 200 200
GET    images/detail                                    401 401 400 403 200 200 200
GET    images/none                                      401 401 400 403 404 404 404
GET    /image                                           300 300 300 300 300 300 300
GET    /image/versions                                  200 200 200 200 200 200 200
GET    /image/v2                                        200 200 200 200 200 200 200
GET    /image/v2/                                       200 200 200 200 200 200 200
GET    /image/v2/images                                 401 401 200 403 200 200 200
GET    /image/v2/images/none                            401 401 404 403 404 404 404
GET    /image/v2/schemas/image                          401 401 200 403 200 200 200
POST   /image/v2/images                                 401 401 501 403 403 501 501
PATCH  /image/v2/images/none                            401 401 415 403 403 415 415
DELETE /image/v2/images/none                            401 401 404 403 403 404 404
PUT    /image/v2/images/none/file                       401 401 415 403 403 415 415
GET    /image/v2/images/none/file                       401 401 404 403 404 404 404
PUT    /image/v2/images/none/tags/t                     401 401 404 403 403 404 404
DELETE /image/v2/images/none/tags/t                     401 401 404 403 403 404 404
GET    /image/v2/images/none/members                    401 401 404 403 404 404 404
POST   /image/v2/images/none/members                    401 401 400 403 403 400 400
GET    /image/v2/images/none/members/m                  401 401 404 403 404 404 404
PUT    /image/v2/images/none/members/m                  401 401 400 403 403 400 400
DELETE /image/v2/images/none/members/m                  401 401 404 403 403 404 404
PUT    /image/v2/images/none/stage                      401 401 415 403 403 415 415
POST   /image/v2/images/none/import                     401 401 400 403 403 400 400
GET    /image/v2/images/none/tasks                      401 401 404 403 404 404 404
GET    /image/v2/tasks                                  401 401 200 403 200 200 200
GET    /image/v2/tasks/none                             401 401 404 403 404 404 404
GET    /image/v2/info/import                            401 401 200 403 200 200 200
GET    /image/v2/info/stores                            401 401 200 403 200 200 200
DELETE /image/v2/stores/none/none                       401 401 404 403 403 404 404
GET    /image/v2/metadefs/namespaces                    401 401 200 403 200 200 200
POST   /image/v2/metadefs/namespaces                    401 401 403 403 403 403 403
GET    /image/v2/metadefs/resource_types                401 401 200 403 200 200 200
POST   /image/v2/images/none/actions/deactivate         401 401 404 403 403 404 404
POST   /image/v2/images/none/actions/reactivate         401 401 404 403 403 404 404

GET    /volume                                         300 300 300 300 300 300 300
GET    /volume/openapi.json                            200 200 200 200 200 200 200
GET    /volume/v3/                                     401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/volumes                     401 401 400 403 200 200 200
GET    /volume/v3/volumes                              401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/volumes/detail              401 401 400 403 200 200 200
GET    /volume/v3/volumes/detail                       401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/volumes/summary             401 401 400 403 200 200 200
GET    /volume/v3/volumes/summary                      401 401 200 403 200 200 200
POST   /volume/v3/{tenant}/volumes                     401 401 400 403 403 400 400
POST   /volume/v3/volumes                              401 401 400 403 403 400 400
GET    /volume/v3/{tenant}/volumes/none                401 401 400 403 404 404 404
GET    /volume/v3/volumes/none                         401 401 404 403 404 404 404
PUT    /volume/v3/{tenant}/volumes/none                401 401 400 403 403 404 404
PUT    /volume/v3/volumes/none                         401 401 404 403 403 404 404
DELETE /volume/v3/{tenant}/volumes/none                401 401 400 403 403 404 404
DELETE /volume/v3/volumes/none                         401 401 404 403 403 404 404
GET    /volume/v3/{tenant}/volumes/none/metadata       401 401 400 403 404 404 404
GET    /volume/v3/volumes/none/metadata                401 401 404 403 404 404 404
POST   /volume/v3/{tenant}/volumes/none/metadata       401 401 400 403 403 404 404
POST   /volume/v3/volumes/none/metadata                401 401 404 403 403 404 404
PUT    /volume/v3/{tenant}/volumes/none/metadata       401 401 400 403 403 404 404
PUT    /volume/v3/volumes/none/metadata                401 401 404 403 403 404 404
GET    /volume/v3/{tenant}/volumes/none/metadata/k     401 401 400 403 404 404 404
GET    /volume/v3/volumes/none/metadata/k              401 401 404 403 404 404 404
PUT    /volume/v3/{tenant}/volumes/none/metadata/k     401 401 400 403 403 404 404
PUT    /volume/v3/volumes/none/metadata/k              401 401 404 403 403 404 404
DELETE /volume/v3/{tenant}/volumes/none/metadata/k     401 401 400 403 403 404 404
DELETE /volume/v3/volumes/none/metadata/k              401 401 404 403 403 404 404
POST   /volume/v3/{tenant}/volumes/none/action         401 401 400 403 403 404 404
POST   /volume/v3/volumes/none/action                  401 401 404 403 403 404 404
GET    /volume/v3/{tenant}/snapshots                   401 401 400 403 200 200 200
GET    /volume/v3/snapshots                            401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/snapshots/detail            401 401 400 403 200 200 200
GET    /volume/v3/snapshots/detail                     401 401 200 403 200 200 200
POST   /volume/v3/{tenant}/snapshots                   401 401 400 403 403 400 400
POST   /volume/v3/snapshots                            401 401 400 403 403 400 400
GET    /volume/v3/{tenant}/snapshots/none              401 401 400 403 404 404 404
GET    /volume/v3/snapshots/none                       401 401 404 403 404 404 404
PUT    /volume/v3/{tenant}/snapshots/none              401 401 400 403 403 404 404
PUT    /volume/v3/snapshots/none                       401 401 404 403 403 404 404
DELETE /volume/v3/{tenant}/snapshots/none              401 401 400 403 403 404 404
DELETE /volume/v3/snapshots/none                       401 401 404 403 403 404 404
GET    /volume/v3/{tenant}/snapshots/none/metadata     401 401 400 403 404 404 404
GET    /volume/v3/snapshots/none/metadata              401 401 404 403 404 404 404
POST   /volume/v3/{tenant}/snapshots/none/metadata     401 401 400 403 403 404 404
POST   /volume/v3/snapshots/none/metadata              401 401 404 403 403 404 404
PUT    /volume/v3/{tenant}/snapshots/none/metadata     401 401 400 403 403 404 404
PUT    /volume/v3/snapshots/none/metadata              401 401 404 403 403 404 404
GET    /volume/v3/{tenant}/snapshots/none/metadata/k   401 401 400 403 404 404 404
GET    /volume/v3/snapshots/none/metadata/k            401 401 404 403 404 404 404
PUT    /volume/v3/{tenant}/snapshots/none/metadata/k   401 401 400 403 403 404 404
PUT    /volume/v3/snapshots/none/metadata/k            401 401 404 403 403 404 404
DELETE /volume/v3/{tenant}/snapshots/none/metadata/k   401 401 400 403 403 404 404
DELETE /volume/v3/snapshots/none/metadata/k            401 401 404 403 403 404 404
GET    /volume/v3/{tenant}/types                       401 401 400 403 200 200 200
GET    /volume/v3/types                                401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/types/default               401 401 400 403 200 200 200
GET    /volume/v3/types/default                        401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/types/none                  401 401 400 403 404 404 404
GET    /volume/v3/types/none                           401 401 404 403 404 404 404
POST   /volume/v3/{tenant}/types                       401 401 400 403 403 403 400
POST   /volume/v3/types                                401 401 400 403 403 403 400
PUT    /volume/v3/{tenant}/types/none                  401 401 400 403 403 403 404
PUT    /volume/v3/types/none                           401 401 404 403 403 403 404
DELETE /volume/v3/{tenant}/types/none                  401 401 400 403 403 403 404
DELETE /volume/v3/types/none                           401 401 404 403 403 403 404
GET    /volume/v3/{tenant}/qos-specs                    401 401 400 403 403 403 200
GET    /volume/v3/qos-specs                             401 401 200 403 403 403 200
POST   /volume/v3/{tenant}/qos-specs                    401 401 400 403 403 403 400
POST   /volume/v3/qos-specs                             401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/qos-specs/none               401 401 400 403 403 403 404
GET    /volume/v3/qos-specs/none                        401 401 404 403 403 403 404
PUT    /volume/v3/{tenant}/qos-specs/none               401 401 400 403 403 403 400
PUT    /volume/v3/qos-specs/none                        401 401 400 403 403 403 400
DELETE /volume/v3/{tenant}/qos-specs/none               401 401 400 403 403 403 404
DELETE /volume/v3/qos-specs/none                        401 401 404 403 403 403 404
PUT    /volume/v3/{tenant}/qos-specs/none/delete_keys   401 401 400 403 403 403 400
PUT    /volume/v3/qos-specs/none/delete_keys            401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/qos-specs/none/associations  401 401 400 403 403 403 404
GET    /volume/v3/qos-specs/none/associations           401 401 404 403 403 403 404
GET    /volume/v3/{tenant}/qos-specs/none/associate     401 401 400 403 403 403 400
GET    /volume/v3/qos-specs/none/associate              401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/qos-specs/none/disassociate  401 401 400 403 403 403 400
GET    /volume/v3/qos-specs/none/disassociate           401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/qos-specs/none/disassociate_all 401 401 400 403 403 403 404
GET    /volume/v3/qos-specs/none/disassociate_all       401 401 404 403 403 403 404
GET    /volume/v3/{tenant}/types/none/encryption       401 401 400 403 403 403 404
GET    /volume/v3/types/none/encryption                401 401 404 403 403 403 404
POST   /volume/v3/{tenant}/types/none/encryption       401 401 400 403 403 403 404
POST   /volume/v3/types/none/encryption                401 401 404 403 403 403 404
GET    /volume/v3/{tenant}/volumes/none/encryption     401 401 400 403 404 404 404
GET    /volume/v3/volumes/none/encryption              401 401 404 403 404 404 404
GET    /volume/v3/{tenant}/types/none/os-volume-type-access 401 401 400 403 403 403 404
GET    /volume/v3/types/none/os-volume-type-access      401 401 404 403 403 403 404
POST   /volume/v3/{tenant}/types/none/action           401 401 400 403 403 403 404
POST   /volume/v3/types/none/action                    401 401 404 403 403 403 404
GET    /volume/v3/{tenant}/types/none/extra_specs      401 401 400 403 403 403 404
GET    /volume/v3/types/none/extra_specs               401 401 404 403 403 403 404
POST   /volume/v3/{tenant}/types/none/extra_specs      401 401 400 403 403 403 404
POST   /volume/v3/types/none/extra_specs               401 401 404 403 403 403 404
GET    /volume/v3/{tenant}/types/none/extra_specs/k    401 401 400 403 403 403 404
GET    /volume/v3/types/none/extra_specs/k             401 401 404 403 403 403 404
PUT    /volume/v3/{tenant}/types/none/extra_specs/k    401 401 400 403 403 403 404
PUT    /volume/v3/types/none/extra_specs/k             401 401 404 403 403 403 404
DELETE /volume/v3/{tenant}/types/none/extra_specs/k    401 401 400 403 403 403 404
DELETE /volume/v3/types/none/extra_specs/k             401 401 404 403 403 403 404
GET    /volume/v3/{tenant}/os-quota-sets/{tenant}      401 401 400 403 200 200 200
GET    /volume/v3/{tenant}/os-quota-sets/{other}       401 401 400 403 403 403 200
GET    /volume/v3/{tenant}/os-quota-sets/{tenant}/defaults 401 401 400 403 200 200 200
PUT    /volume/v3/{tenant}/os-quota-sets/{tenant}      401 401 400 403 403 403 400
GET    /volume/v3/os-quota-sets/{tenant}               401 401 200 403 200 200 200
GET    /volume/v3/os-quota-sets/{other}                401 401 200 403 403 403 200
GET    /volume/v3/os-quota-sets/{tenant}/defaults      401 401 200 403 200 200 200
PUT    /volume/v3/os-quota-sets/{tenant}               401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/limits                      401 401 400 403 200 200 200
GET    /volume/v3/limits                               401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/os-availability-zone        401 401 400 403 200 200 200
GET    /volume/v3/os-availability-zone                 401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/extensions                  401 401 400 403 200 200 200
GET    /volume/v3/extensions                           401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/extensions/none             401 401 400 403 404 404 404
GET    /volume/v3/extensions/none                      401 401 404 403 404 404 404

GET    /volume/v3/{tenant}/attachments                         401 401 400 403 200 200 200
GET    /volume/v3/attachments                                  401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/attachments/detail                  401 401 400 403 200 200 200
GET    /volume/v3/attachments/detail                           401 401 200 403 200 200 200
POST   /volume/v3/{tenant}/attachments                         401 401 400 403 403 400 400
POST   /volume/v3/attachments                                  401 401 400 403 403 400 400
GET    /volume/v3/{tenant}/attachments/none                    401 401 400 403 404 404 404
GET    /volume/v3/attachments/none                             401 401 404 403 404 404 404
PUT    /volume/v3/{tenant}/attachments/none                    401 401 400 403 403 400 400
PUT    /volume/v3/attachments/none                             401 401 400 403 403 400 400
DELETE /volume/v3/{tenant}/attachments/none                    401 401 400 403 403 404 404
DELETE /volume/v3/attachments/none                             401 401 404 403 403 404 404
POST   /volume/v3/{tenant}/attachments/none/action             401 401 400 403 403 400 400
POST   /volume/v3/attachments/none/action                      401 401 400 403 403 400 400

GET    /volume/v3/{tenant}/os-volume-transfer          401 401 400 403 200 200 200
GET    /volume/v3/{tenant}/os-volume-transfer/detail   401 401 400 403 200 200 200
POST   /volume/v3/{tenant}/os-volume-transfer          401 401 400 403 403 400 400
GET    /volume/v3/{tenant}/os-volume-transfer/none     401 401 400 403 404 404 404
DELETE /volume/v3/{tenant}/os-volume-transfer/none     401 401 400 403 403 404 404
POST   /volume/v3/{tenant}/os-volume-transfer/none/accept 401 401 400 403 403 400 400
GET    /volume/v3/os-volume-transfer                   401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/resource_filters            401 401 400 403 200 200 200
GET    /volume/v3/resource_filters                     401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/os-services                    401 401 400 403 403 403 200
GET    /volume/v3/os-services                             401 401 200 403 403 403 200
PUT    /volume/v3/{tenant}/os-services/enable             401 401 400 403 403 403 400
PUT    /volume/v3/os-services/enable                      401 401 400 403 403 403 400
PUT    /volume/v3/{tenant}/os-services/disable            401 401 400 403 403 403 400
PUT    /volume/v3/os-services/disable                     401 401 400 403 403 403 400
PUT    /volume/v3/{tenant}/os-services/disable-log-reason 401 401 400 403 403 403 400
PUT    /volume/v3/os-services/disable-log-reason          401 401 400 403 403 403 400
PUT    /volume/v3/{tenant}/os-services/freeze             401 401 400 403 403 403 400
PUT    /volume/v3/os-services/freeze                      401 401 400 403 403 403 400
PUT    /volume/v3/{tenant}/os-services/thaw               401 401 400 403 403 403 400
PUT    /volume/v3/os-services/thaw                        401 401 400 403 403 403 400
PUT    /volume/v3/{tenant}/os-services/failover_host      401 401 400 403 403 403 501
PUT    /volume/v3/os-services/failover_host               401 401 501 403 403 403 501
PUT    /volume/v3/{tenant}/os-services/failover           401 401 400 403 403 403 501
PUT    /volume/v3/os-services/failover                    401 401 501 403 403 403 501
PUT    /volume/v3/{tenant}/os-services/get-log            401 401 400 403 403 403 501
PUT    /volume/v3/os-services/get-log                     401 401 501 403 403 403 501
PUT    /volume/v3/{tenant}/os-services/set-log            401 401 400 403 403 403 501
PUT    /volume/v3/os-services/set-log                     401 401 501 403 403 403 501
POST   /volume/v3/{tenant}/workers/cleanup                401 401 400 403 403 403 202
POST   /volume/v3/workers/cleanup                         401 401 202 403 403 403 202
GET    /volume/v3/{tenant}/scheduler-stats/get_pools      401 401 400 403 403 403 200
GET    /volume/v3/scheduler-stats/get_pools               401 401 200 403 403 403 200
GET    /volume/v3/{tenant}/capabilities/none              401 401 400 403 403 403 404
GET    /volume/v3/capabilities/none                       401 401 404 403 403 403 404
GET    /volume/v3/{tenant}/os-hosts                       401 401 400 403 403 403 200
GET    /volume/v3/os-hosts                                401 401 200 403 403 403 200
GET    /volume/v3/{tenant}/os-hosts/none                  401 401 400 403 403 403 404
GET    /volume/v3/os-hosts/none                           401 401 404 403 403 403 404
PUT    /volume/v3/{tenant}/os-hosts/none                  401 401 400 403 403 403 501
PUT    /volume/v3/os-hosts/none                           401 401 501 403 403 403 501
GET    /volume/v3/{tenant}/messages                       401 401 400 403 200 200 200
GET    /volume/v3/messages                                401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/messages/none                  401 401 400 403 404 404 404
GET    /volume/v3/messages/none                           401 401 404 403 404 404 404
DELETE /volume/v3/{tenant}/messages/none                  401 401 400 403 403 404 404
DELETE /volume/v3/messages/none                           401 401 404 403 403 404 404
DELETE /volume/v3/{tenant}/os-quota-sets/none             401 401 400 403 403 403 200
DELETE /volume/v3/os-quota-sets/none                      401 401 200 403 403 403 200
GET    /volume/v3/{tenant}/os-quota-class-sets/none       401 401 400 403 403 403 200
GET    /volume/v3/os-quota-class-sets/none                401 401 200 403 403 403 200
PUT    /volume/v3/{tenant}/os-quota-class-sets/none       401 401 400 403 403 403 400
PUT    /volume/v3/os-quota-class-sets/none                401 401 400 403 403 403 400
POST   /volume/v3/{tenant}/snapshots/none/action          401 401 400 403 403 404 404
POST   /volume/v3/snapshots/none/action                   401 401 404 403 403 404 404
GET    /volume/v3/{tenant}/volume-transfers               401 401 400 403 200 200 200
GET    /volume/v3/volume-transfers                        401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/volume-transfers/detail        401 401 400 403 200 200 200
GET    /volume/v3/volume-transfers/detail                 401 401 200 403 200 200 200
POST   /volume/v3/{tenant}/volume-transfers               401 401 400 403 403 400 400
POST   /volume/v3/volume-transfers                        401 401 400 403 403 400 400
GET    /volume/v3/{tenant}/volume-transfers/none          401 401 400 403 404 404 404
GET    /volume/v3/volume-transfers/none                   401 401 404 403 404 404 404
DELETE /volume/v3/{tenant}/volume-transfers/none          401 401 400 403 403 404 404
DELETE /volume/v3/volume-transfers/none                   401 401 404 403 403 404 404
POST   /volume/v3/{tenant}/volume-transfers/none/accept   401 401 400 403 403 400 400
POST   /volume/v3/volume-transfers/none/accept            401 401 400 403 403 400 400
GET    /volume/v3/{tenant}/manageable_volumes                401 401 400 403 403 403 400
GET    /volume/v3/manageable_volumes                         401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/manageable_volumes/detail         401 401 400 403 403 403 400
GET    /volume/v3/manageable_volumes/detail                  401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/os-volume-manage                  401 401 400 403 403 403 400
GET    /volume/v3/os-volume-manage                           401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/os-volume-manage/detail           401 401 400 403 403 403 400
GET    /volume/v3/os-volume-manage/detail                    401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/manageable_snapshots              401 401 400 403 403 403 400
GET    /volume/v3/manageable_snapshots                       401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/manageable_snapshots/detail       401 401 400 403 403 403 400
GET    /volume/v3/manageable_snapshots/detail                401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/os-snapshot-manage                401 401 400 403 403 403 400
GET    /volume/v3/os-snapshot-manage                         401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/os-snapshot-manage/detail         401 401 400 403 403 403 400
GET    /volume/v3/os-snapshot-manage/detail                  401 401 400 403 403 403 400
POST   /volume/v3/{tenant}/os-volume-manage                  401 401 400 403 403 403 400
POST   /volume/v3/os-volume-manage                           401 401 400 403 403 403 400
POST   /volume/v3/{tenant}/manageable_volumes                401 401 400 403 403 403 400
POST   /volume/v3/manageable_volumes                         401 401 400 403 403 403 400
POST   /volume/v3/{tenant}/os-snapshot-manage                401 401 400 403 403 403 400
POST   /volume/v3/os-snapshot-manage                         401 401 400 403 403 403 400
POST   /volume/v3/{tenant}/manageable_snapshots              401 401 400 403 403 403 400
POST   /volume/v3/manageable_snapshots                       401 401 400 403 403 403 400
GET    /volume/v3/{tenant}/default-types                  401 401 400 403 403 403 200
GET    /volume/v3/default-types                           401 401 200 403 403 403 200
GET    /volume/v3/{tenant}/default-types/none             401 401 400 403 403 403 404
GET    /volume/v3/default-types/none                      401 401 404 403 403 403 404
PUT    /volume/v3/{tenant}/default-types/none             401 401 400 403 403 403 400
PUT    /volume/v3/default-types/none                      401 401 400 403 403 403 400
DELETE /volume/v3/{tenant}/default-types/none             401 401 400 403 403 403 204
DELETE /volume/v3/default-types/none                      401 401 204 403 403 403 204
GET    /volume/v3/{tenant}/backups                        401 401 400 403 200 200 200
GET    /volume/v3/backups                                 401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/backups/detail                 401 401 400 403 200 200 200
GET    /volume/v3/backups/detail                          401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/backups/none                   401 401 400 403 404 404 404
GET    /volume/v3/backups/none                            401 401 404 403 404 404 404
POST   /volume/v3/{tenant}/backups                        401 401 400 403 403 501 501
POST   /volume/v3/backups                                 401 401 501 403 403 501 501
GET    /volume/v3/{tenant}/groups                         401 401 400 403 200 200 200
GET    /volume/v3/groups                                  401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/groups/detail                  401 401 400 403 200 200 200
GET    /volume/v3/groups/detail                           401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/groups/none                    401 401 400 403 404 404 404
GET    /volume/v3/groups/none                             401 401 404 403 404 404 404
POST   /volume/v3/{tenant}/groups                         401 401 400 403 403 501 501
POST   /volume/v3/groups                                  401 401 501 403 403 501 501
GET    /volume/v3/{tenant}/group_snapshots                401 401 400 403 200 200 200
GET    /volume/v3/group_snapshots                         401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/group_snapshots/detail         401 401 400 403 200 200 200
GET    /volume/v3/group_snapshots/detail                  401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/group_snapshots/none           401 401 400 403 404 404 404
GET    /volume/v3/group_snapshots/none                    401 401 404 403 404 404 404
POST   /volume/v3/{tenant}/group_snapshots                401 401 400 403 403 501 501
POST   /volume/v3/group_snapshots                         401 401 501 403 403 501 501
GET    /volume/v3/{tenant}/group_types                    401 401 400 403 200 200 200
GET    /volume/v3/group_types                             401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/group_types/none               401 401 400 403 404 404 404
GET    /volume/v3/group_types/none                        401 401 404 403 404 404 404
POST   /volume/v3/{tenant}/group_types                    401 401 400 403 403 501 501
POST   /volume/v3/group_types                             401 401 501 403 403 501 501
GET    /volume/v3/{tenant}/consistencygroups              401 401 400 403 200 200 200
GET    /volume/v3/consistencygroups                       401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/consistencygroups/detail       401 401 400 403 200 200 200
GET    /volume/v3/consistencygroups/detail                401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/consistencygroups/none         401 401 400 403 404 404 404
GET    /volume/v3/consistencygroups/none                  401 401 404 403 404 404 404
POST   /volume/v3/{tenant}/consistencygroups              401 401 400 403 403 501 501
POST   /volume/v3/consistencygroups                       401 401 501 403 403 501 501
GET    /volume/v3/{tenant}/cgsnapshots                    401 401 400 403 200 200 200
GET    /volume/v3/cgsnapshots                             401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/cgsnapshots/detail             401 401 400 403 200 200 200
GET    /volume/v3/cgsnapshots/detail                      401 401 200 403 200 200 200
GET    /volume/v3/{tenant}/cgsnapshots/none               401 401 400 403 404 404 404
GET    /volume/v3/cgsnapshots/none                        401 401 404 403 404 404 404
POST   /volume/v3/{tenant}/cgsnapshots                    401 401 400 403 403 501 501
POST   /volume/v3/cgsnapshots                             401 401 501 403 403 501 501
GET    /volume/v3/{tenant}/clusters                       401 401 400 403 403 403 200
GET    /volume/v3/clusters                                401 401 200 403 403 403 200
GET    /volume/v3/{tenant}/clusters/detail                401 401 400 403 403 403 200
GET    /volume/v3/clusters/detail                         401 401 200 403 403 403 200
GET    /volume/v3/{tenant}/clusters/none                  401 401 400 403 403 403 404
GET    /volume/v3/clusters/none                           401 401 404 403 403 403 404
GET    /volume/v3/{tenant}/group_types/default            401 401 400 403 404 404 404
GET    /volume/v3/group_types/default                     401 401 404 403 404 404 404
GET    /volume/v3/os-volume-transfer/detail            401 401 200 403 200 200 200
POST   /volume/v3/os-volume-transfer                   401 401 400 403 403 400 400
GET    /volume/v3/os-volume-transfer/none              401 401 404 403 404 404 404
DELETE /volume/v3/os-volume-transfer/none              401 401 404 403 403 404 404
POST   /volume/v3/os-volume-transfer/none/accept       401 401 400 403 403 400 400

GET    /identity                                        300 300 300 300 300 300 300
GET    /identity/v3                                     200 200 200 200 200 200 200
POST   /identity/v3/auth/tokens                         400 400 400 400 400 400 400
GET    /identity/v3/auth/tokens                         401 401 200 403 200 403 200
DELETE /identity/v3/auth/tokens                         401 401 204 403 204 403 204
GET    /identity/v3/auth/catalog                        401 401 200 200 200 200 200
GET    /identity/v3/auth/projects                       401 401 200 200 200 200 200
GET    /identity/v3/projects                            401 401 200 200 200 200 200
GET    /identity/v3/projects/{tenant}                   401 401 200 200 200 200 200
GET    /identity/v3/users/reader/projects               401 401 403 403 200 403 403
GET    /identity/v3/users                               401 401 200 200 200 200 200
GET    /identity/v3/users/reader                        401 401 200 403 200 403 200
GET    /identity/v2.0                                   200 200 200 200 200 200 200
POST   /identity/v2.0/tokens                            400 400 400 400 400 400 400
GET    /identity/v2.0/tenants                           401 401 200 200 200 200 200
GET    /v2.0                                            200 200 200 200 200 200 200
POST   /v2.0/tokens                                     400 400 400 400 400 400 400
GET    /v2.0/tenants                                    401 401 200 200 200 200 200
"""
#: The prefix of a dialect, and the endpoint of a route.
Route = tuple[tuple[bytes, ...], str]
CALLERS = ("nobody", "expired", "other", "guest", "reader", "member", "admin")

_PASSWORD = "the password of all"
_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(_PASSWORD)
#: An admin's log-in by identity API v2.0.
ADMIN = {
    "passwordCredentials": {"username": "admin", "password": _PASSWORD},
    "tenantName": "demo",
}
IDENTITY = f"""\
[identity]
plugin = "embedded"
directory = "identity"

[[identity.projects]]
name = "demo"
id = "{TENANT}"

[[identity.projects]]
name = "other"
id = "{OTHER_TENANT}"
""" + "".join(
    f'[[identity.users]]\nname = "{name}"\npassword_hash = "{_HASH}"\nroles = {{ {roles} }}\n'
    for name, roles in (
        ("guest", 'demo = ["guest"]'),
        ("reader", 'demo = ["reader"]'),
        ("member", 'demo = ["member"]'),
        ("admin", 'demo = ["admin"]'),
        ("other", 'other = ["admin"]'),
    )
)


@attrs.frozen
class Row:
    """A request, and the status for each caller."""

    method: str
    path: str
    statuses: tuple[int, ...]

    @property
    def paths(self) -> Iterator[str]:
        """All full paths of the row."""
        path = self.path.format(tenant=TENANT, other=OTHER_TENANT)
        if path.startswith("/"):
            yield path
        else:
            yield from (f"/{base}/{TENANT}/{path}" for base in ("v1.1", "v2"))


def read(table: str) -> list[Row]:
    """Return the rows of a table."""
    lines = [line.split() for line in table.splitlines() if line]
    return [
        Row(method, path, tuple(map(int, statuses)))
        for method, path, *statuses in lines
        if len(statuses) == len(CALLERS)
    ]


ROWS = read(TABLE)


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon with all callers."""
    daemon = Running(tmp_path, identity=IDENTITY)
    yield daemon
    await daemon.stop()


def routes(daemon: Running) -> set[Route]:
    """Return all routes of the daemon."""
    return {
        (dialect.prefix, rule.endpoint)
        for dialect in daemon.site.resource.mounts
        for rule in dialect.app.url_map.iter_rules()
    }


def route(daemon: Running, method: str, path: str) -> Route:
    """Return the route of a request."""
    segments = path.removesuffix(".json").encode().split(b"/")[1:]
    for dialect in daemon.site.resource.mounts:
        length = len(dialect.prefix)
        if dialect.prefix == tuple(segments[:length]):
            rest = "/" + b"/".join(segments[length:]).decode()
            return dialect.prefix, dialect.app.url_map.bind("host").match(rest, method)[0]
    raise AssertionError(path)


@ensureDeferred
async def test_every_route_has_a_row(daemon: Running) -> None:
    """Each route of each dialect has a row in the table.

    Break: `src/bootvol/api/keystone/v3.py`: `"auth/projects",` -> `"auth/projects",
    aliases={"all": "x"},`.
    """
    known = {route(daemon, row.method, path) for row in ROWS for path in row.paths}
    assert len(routes(daemon)) > 100
    assert routes(daemon) - known == set()
    assert len(ROWS) == len([line for line in TABLE.splitlines() if line])


@ensureDeferred
async def test_everybody_is_answered_as_the_table_says(daemon: Running) -> None:
    """Each caller gets the status in the table, on each route.

    Break: `src/bootvol/api/admission.py`: `and caller.tenant != incoming.tenant:` -> `and
    not incoming.tenant:`.
    Break: `src/bootvol/api/admission.py`: `self._policy.check(caller.roles, operation.right)` ->
    `_ = operation.right`.
    """
    tokens = {name: await token(daemon, name) for name in CALLERS[2:]}
    tokens["expired"] = expired(daemon, tokens["member"])
    wrong = []
    for row in ROWS:
        for path in row.paths:
            for caller, expected in zip(CALLERS, row.statuses, strict=True):
                headers = {
                    "X-Subject-Token": tokens["reader"],
                    "OpenStack-API-Version": "volume latest",
                }
                if row.path == "/identity/v3/auth/tokens" and row.method == "DELETE":
                    # A user's own token, once ended, is unknown afterwards.
                    headers["X-Subject-Token"] = await token(daemon, "reader")
                body: object = {} if row.method in {"POST", "PUT"} else None
                answer = await daemon.request(
                    row.method, path, body, tokens.get(caller), headers=headers
                )
                if answer.status != expected:
                    wrong.append((row.method, path, caller, answer.status, expected))
    assert wrong == []


async def token(daemon: Running, name: str) -> str:
    """Log in a user to the user's only project."""
    credentials = {"username": name, "password": _PASSWORD}
    project = "other" if name == "other" else "demo"
    answer = await daemon.request(
        "POST",
        "/v2.0/tokens",
        {"auth": {"passwordCredentials": credentials, "tenantName": project}},
        token=None,
    )
    return str(answer.json["access"]["token"]["id"])


def expired(daemon: Running, valid: str) -> str:
    """Return an expired copy of a token, signed by the daemon's own key."""
    tokens = Tokens((daemon.folder / "identity" / "key").read_bytes())
    claims = tokens.read(valid, 0)
    return tokens.write(attrs.evolve(claims, issued=1, expires=2))


@pytest.mark.parametrize("line", ["GET / 200", "GET / 200 200 200 200 200 200 200 200"])
def test_a_row_that_says_too_little_or_too_much_does_not_count(line: str) -> None:
    assert read(line) == []
