"""What the admission plugins change and refuse, through HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.apiserver.admission.runtime_class import merge_tolerations
from shipwheel.client.client import Client
from shipwheel.client.resources import CONFIG_MAPS, PERSISTENT_VOLUME_CLAIMS, PODS, SERVICES, STORAGE_CLASSES
from tests.apiserver.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

RBAC = "rbac.authorization.k8s.io"
ROLES = GroupVersionResource(RBAC, "v1", "roles")
ROLE_BINDINGS = GroupVersionResource(RBAC, "v1", "rolebindings")
QUOTAS = GroupVersionResource("", "v1", "resourcequotas")
LIMIT_RANGES = GroupVersionResource("", "v1", "limitranges")
NODES = GroupVersionResource("", "v1", "nodes")
PRIORITY_CLASSES = GroupVersionResource("scheduling.k8s.io", "v1", "priorityclasses")


def pod(name: str, **spec: Any) -> Obj:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


async def refused(awaitable: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await awaitable
    return caught.value


async def test_a_pod_gets_its_account_token_priority_and_tolerations(admin: Client, namespace: str) -> None:
    spec = (await admin.create(PODS, pod("p"), namespace))["spec"]
    assert (spec["serviceAccountName"], spec["priority"], spec["preemptionPolicy"]) == (
        "default", 0, "PreemptLowerPriority",
    )  # fmt: skip
    [volume] = spec["volumes"]
    [mount] = spec["containers"][0]["volumeMounts"]
    assert mount == {
        "name": volume["name"],
        "readOnly": True,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    }
    assert [each["key"] for each in spec["tolerations"]] == [
        "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable",
    ]  # fmt: skip


async def test_an_account_that_is_not_there(admin: Client, namespace: str) -> None:
    error = await refused(admin.create(PODS, pod("p", serviceAccountName="nobody"), namespace))
    assert (error.code, error.message) == (
        403,
        f'pods "p" is forbidden: error looking up service account {namespace}/nobody: serviceaccount "nobody" '
        "not found",
    )


async def test_a_runtime_class_adds_its_overhead_and_nodes(admin: Client, namespace: str) -> None:
    classes = GroupVersionResource("node.k8s.io", "v1", "runtimeclasses")
    toleration = {"key": "sandbox", "operator": "Exists", "effect": "NoSchedule"}
    await admin.create(
        classes,
        {
            "metadata": {"name": "sandboxed"},
            "handler": "h",
            "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"sandbox": "yes"}, "tolerations": [toleration]},
        },
    )
    spec = (await admin.create(PODS, pod("p", runtimeClassName="sandboxed", nodeSelector={"a": "b"}), namespace))[
        "spec"
    ]
    assert spec["overhead"] == {"cpu": "10m"}
    assert spec["nodeSelector"] == {"a": "b", "sandbox": "yes"}
    assert spec["tolerations"].count(toleration) == 1
    for wrong, message in (
        ({"runtimeClassName": "none"}, 'pod rejected: RuntimeClass "none" not found'),
        (
            {"overhead": {"cpu": "1"}},
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            {"runtimeClassName": "sandboxed", "overhead": {"cpu": "1"}},
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            {"runtimeClassName": "sandboxed", "nodeSelector": {"sandbox": "no"}},
            "conflict: runtimeClass.scheduling.nodeSelector[sandbox] = yes; pod.spec.nodeSelector[sandbox] = no",
        ),
    ):
        error = await refused(admin.create(PODS, pod("q", **wrong), namespace))
        assert error.message == f'pods "q" is forbidden: {message}'


async def test_tolerations_that_others_cover_go() -> None:
    everything = {"operator": "Exists"}
    one = {"key": "a", "operator": "Equal", "value": "1", "effect": "NoSchedule"}
    other = {**one, "value": "2"}
    assert merge_tolerations([one, everything]) == [everything]
    assert merge_tolerations([one, other, one]) == [one, other]
    brief = {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    longer = {**brief, "tolerationSeconds": 9}
    assert merge_tolerations([brief, longer]) == [longer]


async def test_priority_comes_from_the_class(admin: Client, namespace: str) -> None:
    await admin.create(PRIORITY_CLASSES, {"metadata": {"name": "high"}, "value": 1000})
    made = await admin.create(PODS, pod("p", priorityClassName="high"), namespace)
    assert made["spec"]["priority"] == 1000
    error = await refused(admin.create(PODS, pod("q", priorityClassName="none"), namespace))
    assert error.message == 'pods "q" is forbidden: no PriorityClass with name none was found'


async def test_limits_are_filled_in_and_kept(admin: Client, namespace: str) -> None:
    limits = [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}, "max": {"cpu": "2"}}]
    await admin.create(LIMIT_RANGES, {"metadata": {"name": "l"}, "spec": {"limits": limits}}, namespace)
    made = await admin.create(PODS, pod("p"), namespace)
    assert made["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    )
    large = {"name": "c", "image": "i", "resources": {"limits": {"cpu": "3"}}}
    error = await refused(admin.create(PODS, pod("q", containers=[large]), namespace))
    assert error.message == ('pods "q" is forbidden: maximum cpu usage per Container is 2, but limit is 3')


class TestQuota:
    async def quota(self, admin: Client, namespace: str, hard: dict[str, str], name: str = "q", **spec: object) -> None:
        """A quota as the controller has counted it."""
        await admin.create(QUOTAS, {"metadata": {"name": name}, "spec": {"hard": hard, **spec}}, namespace)
        status = {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
        await admin.patch(QUOTAS, name, namespace, status, subresource="status")

    async def used(self, admin: Client, namespace: str, name: str = "q") -> dict[str, str]:
        return (await admin.get(QUOTAS, name, namespace))["status"]["used"]

    async def test_counting_objects(self, admin: Client, namespace: str) -> None:
        await self.quota(admin, namespace, {"configmaps": "2"})
        for name in ("a", "b"):
            await admin.create(CONFIG_MAPS, {"metadata": {"name": name}}, namespace)
        error = await refused(admin.create(CONFIG_MAPS, {"metadata": {"name": "c"}}, namespace))
        assert (error.code, error.message) == (
            403,
            'configmaps "c" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=2, '
            "limited: configmaps=2",
        )
        assert (await admin.get(QUOTAS, "q", namespace))["status"]["used"] == {"configmaps": "2"}

    async def test_a_dry_run_takes_nothing(self, admin: Client, namespace: str) -> None:
        await self.quota(admin, namespace, {"configmaps": "2"})
        await admin.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, namespace, dry_run=True)
        assert (await admin.get(QUOTAS, "q", namespace))["status"]["used"] == {"configmaps": "0"}

    async def test_what_must_be_said(self, admin: Client, namespace: str) -> None:
        await self.quota(admin, namespace, {"limits.memory": "1Gi", "requests.cpu": "1"})
        error = await refused(admin.create(PODS, pod("p"), namespace))
        assert error.message == (
            'pods "p" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c'
        )

    async def test_a_quota_that_has_not_been_counted_yet(self, admin: Client, namespace: str) -> None:
        await admin.create(QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "2"}}}, namespace)
        await admin.patch(QUOTAS, "q", namespace, {"status": {"hard": {"configmaps": "2"}}}, subresource="status")
        error = await refused(admin.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, namespace))
        assert error.message == 'configmaps "a" is forbidden: status unknown for quota: q, resources: configmaps'

    async def test_a_pod_that_comes_into_a_scope_is_charged_in_full(self, admin: Client, namespace: str) -> None:
        await self.quota(admin, namespace, {"pods": "1"}, scopes=["Terminating"])
        await admin.create(PODS, pod("p"), namespace)
        assert await self.used(admin, namespace) == {"pods": "0"}
        await admin.patch(PODS, "p", namespace, {"spec": {"activeDeadlineSeconds": 60}})
        assert await self.used(admin, namespace) == {"pods": "1"}
        await admin.patch(PODS, "p", namespace, {"spec": {"activeDeadlineSeconds": 50}})
        assert await self.used(admin, namespace) == {"pods": "1"}
        late = pod("q", activeDeadlineSeconds=60)
        assert (await refused(admin.create(PODS, late, namespace))).code == 403

    async def test_a_claim_counts_for_each_of_its_attributes_classes(self, admin: Client, namespace: str) -> None:
        for name in ("gold", "silver"):
            selector = {"scopeName": "VolumeAttributesClass", "operator": "In", "values": [name]}
            chosen = {"matchExpressions": [selector]}
            await self.quota(admin, namespace, {"persistentvolumeclaims": "1"}, name, scopeSelector=chosen)
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "volumeAttributesClassName": "gold",
        }
        await admin.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "c"}, "spec": spec}, namespace)
        status = {"status": {"phase": "Bound", "currentVolumeAttributesClassName": "gold"}}
        await admin.patch(PERSISTENT_VOLUME_CLAIMS, "c", namespace, status, subresource="status")
        assert await self.used(admin, namespace, "silver") == {"persistentvolumeclaims": "0"}
        change = {"spec": {"volumeAttributesClassName": "silver"}}
        await admin.patch(PERSISTENT_VOLUME_CLAIMS, "c", namespace, change)
        for name in ("gold", "silver"):
            assert await self.used(admin, namespace, name) == {"persistentvolumeclaims": "1"}

    async def test_what_is_asked_for_less_is_given_back_by_the_controller(self, admin: Client, namespace: str) -> None:
        await self.quota(admin, namespace, {"services.nodeports": "2"})
        ports = [{"name": name, "port": port} for name, port in (("a", 80), ("b", 81))]
        body = {"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": ports, "selector": {"a": "b"}}}
        await admin.create(SERVICES, body, namespace)
        await admin.patch(SERVICES, "s", namespace, {"spec": {"type": "ClusterIP"}})
        assert await self.used(admin, namespace) == {"services.nodeports": "2"}


class TestEscalation:
    async def test_rights_are_passed_on_only_by_those_who_have_them(
        self, admin: Client, world: World, namespace: str
    ) -> None:
        own = [{"apiGroups": [RBAC], "resources": ["roles", "rolebindings"], "verbs": ["create"]}]
        pods = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
        await admin.create(ROLES, {"metadata": {"name": "own"}, "rules": own}, namespace)
        await admin.create(ROLES, {"metadata": {"name": "pods"}, "rules": pods}, namespace)
        await admin.create(ROLE_BINDINGS, self.binding("ann", "own"), namespace)
        async with world.client("ann") as ann:
            error = await refused(ann.create(ROLES, {"metadata": {"name": "more"}, "rules": pods}, namespace))
            assert error.code == 403
            assert error.message.endswith(
                "is attempting to grant RBAC permissions not currently held:\n"
                '{APIGroups:[""], Resources:["pods"], Verbs:["get"]}'
            )
            assert (await refused(ann.create(ROLE_BINDINGS, self.binding("bob", "pods"), namespace))).code == 403
            await admin.create(ROLE_BINDINGS, self.binding("ann", "pods", name="ann-pods"), namespace)
            await ann.create(ROLES, {"metadata": {"name": "more"}, "rules": pods}, namespace)
            await ann.create(ROLE_BINDINGS, self.binding("bob", "pods"), namespace)

    def binding(self, user: str, role: str, *, name: str = "") -> Obj:
        return {
            "metadata": {"name": name or user},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": role},
            "subjects": [{"kind": "User", "apiGroup": RBAC, "name": user}],
        }


class TestNodes:
    async def test_a_kubelet_sees_only_its_own(self, admin: Client, world: World, namespace: str) -> None:
        await admin.create(CONFIG_MAPS, {"metadata": {"name": "mine"}}, namespace)
        await admin.create(CONFIG_MAPS, {"metadata": {"name": "other"}}, namespace)
        volume = {"name": "v", "configMap": {"name": "mine"}}
        await admin.create(PODS, pod("p", nodeName="n1", volumes=[volume]), namespace)
        async with world.client("system:node:n1", "system:nodes") as kubelet:
            await kubelet.create(NODES, {"metadata": {"name": "n1"}})
            assert (await kubelet.get(CONFIG_MAPS, "mine", namespace))["metadata"]["name"] == "mine"
            assert (await refused(kubelet.get(CONFIG_MAPS, "other", namespace))).code == 403
            listed = await kubelet.list(PODS, field_selector="spec.nodeName=n1")
            assert [each["metadata"]["name"] for each in listed["items"]] == ["p"]
            assert (await refused(kubelet.list(PODS))).code == 403
            error = await refused(kubelet.create(NODES, {"metadata": {"name": "n2"}}))
            assert error.code == 403
            labels = {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}
            assert (await refused(kubelet.patch(NODES, "n1", "", labels))).code == 403
            await kubelet.delete(PODS, "p", namespace, grace_period=0)
            assert (await refused(kubelet.get(CONFIG_MAPS, "mine", namespace))).code == 403

    async def test_its_pods_are_known_whatever_was_sent_with_them(
        self, admin: Client, world: World, namespace: str
    ) -> None:
        """Clients in Go send an empty status, and the second pod of a template is made from what is remembered."""
        await admin.create(CONFIG_MAPS, {"metadata": {"name": "mine"}}, namespace)
        volumes = [{"name": "v", "configMap": {"name": "mine"}}]
        for name in ("first", "second"):
            made = await admin.create(PODS, {**pod(name, volumes=volumes), "status": {}}, namespace)
            assert list(made).index("spec") < list(made).index("status")
        binding = {"metadata": {"name": "second"}, "target": {"kind": "Node", "name": "n7"}}
        await admin.create(PODS, binding, namespace, name="second", subresource="binding")
        async with world.client("system:node:n7", "system:nodes") as kubelet:
            assert (await kubelet.get(CONFIG_MAPS, "mine", namespace))["metadata"]["name"] == "mine"


async def test_an_update_keeps_what_priority_decided(admin: Client, namespace: str) -> None:
    made = await admin.create(PODS, pod("p"), namespace)
    del made["spec"]["priority"], made["spec"]["preemptionPolicy"]
    kept = await admin.update(PODS, made)
    assert (kept["spec"]["priority"], kept["spec"]["preemptionPolicy"]) == (0, "PreemptLowerPriority")


async def test_a_claim_grows_where_its_class_lets_it(admin: Client, namespace: str) -> None:
    for name, allowed in (("grows", True), ("stays", False)):
        made = {"metadata": {"name": f"{namespace}-{name}"}, "provisioner": "p", "allowVolumeExpansion": allowed}
        await admin.create(STORAGE_CLASSES, made)
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": f"{namespace}-{name}",
            "volumeName": "v",
        }
        await admin.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": name}, "spec": spec}, namespace)
    more = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    early = await refused(admin.patch(PERSISTENT_VOLUME_CLAIMS, "grows", namespace, more))
    assert early.code == 422, "validation, which also lets only bound claims grow, is asked before admission"
    for name in ("grows", "stays"):
        status = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
        await admin.patch(PERSISTENT_VOLUME_CLAIMS, name, namespace, status, subresource="status")
    await admin.patch(PERSISTENT_VOLUME_CLAIMS, "grows", namespace, more)
    late = await refused(admin.patch(PERSISTENT_VOLUME_CLAIMS, "stays", namespace, more))
    assert (late.code, late.reason) == (403, "Forbidden")
    assert "the storageclass that provisions the pvc must support resize" in late.message
    for name in ("grows", "stays"):
        await admin.delete(STORAGE_CLASSES, f"{namespace}-{name}")
