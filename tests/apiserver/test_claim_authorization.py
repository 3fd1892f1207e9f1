"""Who may write which part of a ResourceClaim's status; what is said is what upstream's server says."""

from __future__ import annotations

from typing import Any

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.client import Client
from shipwheel.kinds.resource.claimauthorization import allocated_node, changed_drivers
from tests.apiserver.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEVICES, RBAC = "resource.k8s.io", "rbac.authorization.k8s.io"
CLAIMS = GroupVersionResource(DEVICES, "v1", "resourceclaims")
ROLES = GroupVersionResource(RBAC, "v1", "roles")
ROLE_BINDINGS = GroupVersionResource(RBAC, "v1", "rolebindings")


async def test_which_drivers_reports_have_changed() -> None:
    one, two = ({"driver": driver, "pool": "p", "device": "d"} for driver in ("a.io", "b.io"))
    assert changed_drivers({"devices": [one]}, {"devices": [one]}) == set()
    assert changed_drivers({"devices": [one, two]}, {"devices": [one]}) == {"b.io"}
    assert changed_drivers({}, {"devices": [one]}) == {"a.io"}
    assert changed_drivers({"devices": [{**one, "data": {}}, two]}, {"devices": [one, two]}) == {"a.io"}


async def test_the_node_of_an_allocation() -> None:
    def on(*terms: Obj) -> str:
        return allocated_node({"nodeSelector": {"nodeSelectorTerms": list(terms)}})

    field = {"key": "metadata.name", "operator": "In", "values": ["n1"]}
    assert on({"matchFields": [field]}) == "n1"
    assert on({"matchFields": [field]}, {"matchFields": [field]}) == ""
    assert on({"matchFields": [{**field, "values": ["n1", "n2"]}]}) == ""
    assert on({"matchFields": [field], "matchExpressions": [{"key": "a", "operator": "Exists"}]}) == ""
    assert allocated_node({}) == ""


async def refusal(write: Any) -> str:
    with pytest.raises(ApiError) as refused:
        await write
    assert refused.value.code == 422
    return refused.value.message


async def test_each_part_has_rights_of_its_own(admin: Client, world: World, namespace: str) -> None:
    claim = {
        "metadata": {"name": "c"},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "x"}}]}},
    }
    await admin.create(CLAIMS, claim, namespace)
    rules = [{"apiGroups": [DEVICES], "resources": ["resourceclaims/status"], "verbs": ["patch"]}]
    await admin.create(ROLES, {"metadata": {"name": "status"}, "rules": rules}, namespace)
    for user in ("eve", "system:serviceaccount:default:agent"):
        binding = {
            "metadata": {"name": user.replace(":", ".")},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "status"},
            "subjects": [{"kind": "User", "apiGroup": RBAC, "name": user}],
        }
        await admin.create(ROLE_BINDINGS, binding, namespace)
    result = {"request": "r", "driver": "d.io", "pool": "p", "device": "gpu"}
    allocation = {"status": {"allocation": {"devices": {"results": [result]}}}}
    report = {"status": {"devices": [{"driver": "d.io", "pool": "p", "device": "gpu", "data": {"a": 1}}]}}
    async with world.client("eve") as eve:
        assert await refusal(eve.patch(CLAIMS, "c", namespace, allocation, subresource="status")) == (
            'ResourceClaim.resource.k8s.io "c" is invalid: status.allocation: Forbidden: changing status.allocation or '
            'status.reservedFor requires resource="resourceclaims/binding", verb="patch" permission: '
            'resourceclaims.resource.k8s.io is forbidden: User "eve" cannot patch resource "resourceclaims/binding" in '
            'API group "resource.k8s.io" at the cluster scope'
        )
        await admin.patch(CLAIMS, "c", namespace, allocation, subresource="status")
        assert await refusal(eve.patch(CLAIMS, "c", namespace, report, subresource="status")) == (
            'ResourceClaim.resource.k8s.io "c" is invalid: status.devices: Forbidden: changing status.devices requires '
            'resource="resourceclaims/driver", verb="[arbitrary-node:patch]" permission: resourceclaims.'
            'resource.k8s.io "d.io" is forbidden: User "eve" cannot arbitrary-node:patch resource '
            '"resourceclaims/driver" in API group '
            f'"resource.k8s.io" in the namespace "{namespace}"'
        )
        driver = {"apiGroups": [DEVICES], "resources": ["resourceclaims/driver"], "verbs": ["arbitrary-node:patch"]}
        await admin.patch(ROLES, "status", namespace, {"rules": [*rules, {**driver, "resourceNames": ["d.io"]}]})
        assert (await eve.patch(CLAIMS, "c", namespace, report, subresource="status"))["status"]["devices"]
