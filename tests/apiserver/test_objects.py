"""Writing and reading objects, through HTTP, as any client does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.client import Client
from shipwheel.client.resources import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    LEASES,
    NAMESPACES,
    PODS,
    SERVICES,
)
from tests.apiserver.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


def config_map(name: str, **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str, **metadata: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }


async def refused(awaitable: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await awaitable
    return caught.value


class TestCreating:
    async def test_the_default_service_range(self, admin: Client) -> None:
        found = await admin.call("GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
        assert len(found["spec"]["cidrs"]) == 1

    async def test_the_server_fills_in_what_is_its_own(self, admin: Client, namespace: str) -> None:
        made = await admin.create(CONFIG_MAPS, config_map("a", x="1"), namespace)
        assert made["metadata"]["namespace"] == namespace
        assert made["metadata"]["uid"] and made["metadata"]["creationTimestamp"]
        assert int(made["metadata"]["resourceVersion"]) > 0
        assert made["data"] == {"x": "1"}
        assert await admin.get(CONFIG_MAPS, "a", namespace) == made

    async def test_a_name_can_be_taken_only_once(self, admin: Client, namespace: str) -> None:
        await admin.create(CONFIG_MAPS, config_map("a"), namespace)
        error = await refused(admin.create(CONFIG_MAPS, config_map("a"), namespace))
        assert (error.code, error.reason) == (409, "AlreadyExists")
        assert error.message == 'configmaps "a" already exists'

    async def test_names_are_generated(self, admin: Client, namespace: str) -> None:
        body = {"metadata": {"generateName": "x-"}}
        names = {(await admin.create(CONFIG_MAPS, dict(body), namespace))["metadata"]["name"] for _ in range(5)}
        assert len(names) == 5 and all(len(name) == 7 and name.startswith("x-") for name in names)

    async def test_a_bad_name_is_explained(self, admin: Client, namespace: str) -> None:
        error = await refused(admin.create(CONFIG_MAPS, config_map("Not_A_Name"), namespace))
        assert (error.code, error.reason) == (422, "Invalid")
        assert error.message.startswith('ConfigMap "Not_A_Name" is invalid: metadata.name: Invalid value: "Not_A_Name"')
        assert error.details is not None and error.details["causes"][0]["field"] == "metadata.name"

    async def test_a_pod_needs_containers(self, admin: Client, namespace: str) -> None:
        error = await refused(admin.create(PODS, {"metadata": {"name": "p"}, "spec": {}}, namespace))
        assert (error.code, error.message) == (
            422, 'Pod "p" is invalid: spec.containers: Required value',
        )  # fmt: skip

    async def test_nothing_is_made_where_there_is_no_namespace(self, admin: Client) -> None:
        error = await refused(admin.create(CONFIG_MAPS, config_map("a"), "nowhere"))
        assert (error.code, error.message) == (404, 'namespaces "nowhere" not found')

    async def test_dry_run_leaves_nothing(self, admin: Client, namespace: str) -> None:
        made = await admin.create(CONFIG_MAPS, config_map("a"), namespace, dry_run=True)
        assert made["metadata"]["uid"]
        assert (await refused(admin.get(CONFIG_MAPS, "a", namespace))).reason == "NotFound"

    async def test_the_namespace_of_the_body_must_be_that_of_the_path(self, admin: Client, namespace: str) -> None:
        body = config_map("a")
        body["metadata"]["namespace"] = "other"
        error = await refused(admin.create(CONFIG_MAPS, body, namespace))
        assert error.code == 400
        assert error.message == (
            "the namespace of the provided object does not match the namespace sent on the request"
        )


class TestChanging:
    async def test_a_stale_resource_version_conflicts(self, admin: Client, namespace: str) -> None:
        first = await admin.create(CONFIG_MAPS, config_map("a", x="1"), namespace)
        await admin.update(CONFIG_MAPS, {**first, "data": {"x": "2"}})
        error = await refused(admin.update(CONFIG_MAPS, {**first, "data": {"x": "3"}}))
        assert (error.code, error.reason) == (409, "Conflict")
        assert error.message == (
            'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes '
            "to the latest version and try again"
        )

    async def test_a_write_that_changes_nothing_writes_nothing(self, admin: Client, namespace: str) -> None:
        first = await admin.create(CONFIG_MAPS, config_map("a", x="1"), namespace)
        again = await admin.update(CONFIG_MAPS, first)
        assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]

    @pytest.mark.parametrize("version", ["", "0"])
    async def test_without_a_resource_version_the_last_one_wins(
        self, admin: Client, namespace: str, version: str
    ) -> None:
        await admin.create(CONFIG_MAPS, config_map("a", x="1"), namespace)
        body = config_map("a", x="2")
        body["metadata"] |= {"namespace": namespace, "resourceVersion": version}
        assert (await admin.update(CONFIG_MAPS, body))["data"] == {"x": "2"}

    async def test_generation_counts_changes_of_the_spec(self, admin: Client, namespace: str) -> None:
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        body = {
            "metadata": {"name": "d"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
        }
        made = await admin.create(DEPLOYMENTS, body, namespace)
        assert (made["metadata"]["generation"], made["spec"]["replicas"]) == (1, 1)
        labelled = await admin.patch(DEPLOYMENTS, "d", namespace, {"metadata": {"labels": {"l": "m"}}})
        assert labelled["metadata"]["generation"] == 1
        scaled = await admin.patch(DEPLOYMENTS, "d", namespace, {"spec": {"replicas": 3}})
        assert scaled["metadata"]["generation"] == 2
        status = {"status": {"replicas": 3, "observedGeneration": 2}}
        after = await admin.patch(DEPLOYMENTS, "d", namespace, status, subresource="status")
        assert (after["metadata"]["generation"], after["status"]["replicas"]) == (2, 3)
        ignored = await admin.patch(DEPLOYMENTS, "d", namespace, {"status": {"replicas": 9}})
        assert ignored["status"]["replicas"] == 3

    async def test_many_writers_lose_nothing(self, admin: Client, namespace: str) -> None:
        await admin.create(CONFIG_MAPS, config_map("a"), namespace)

        async def add(key: int) -> None:
            for attempt in range(50):
                try:
                    await admin.patch(CONFIG_MAPS, "a", namespace, {"data": {f"k{key}": str(attempt)}})
                except ApiError as error:
                    assert error.reason == "Conflict"
                else:
                    return
            raise AssertionError("never written")

        await asyncio.gather(*(add(key) for key in range(20)))
        assert len((await admin.get(CONFIG_MAPS, "a", namespace))["data"]) == 20

    async def test_scale_is_a_view(self, admin: Client, namespace: str) -> None:
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        body = {
            "metadata": {"name": "d"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template},
        }
        await admin.create(DEPLOYMENTS, body, namespace)
        scale = await admin.get(DEPLOYMENTS, "d", namespace, subresource="scale")
        assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 2})
        scale["spec"]["replicas"] = 5
        assert (await admin.update(DEPLOYMENTS, scale, subresource="scale"))["spec"]["replicas"] == 5
        assert (await admin.get(DEPLOYMENTS, "d", namespace))["spec"]["replicas"] == 5

    async def test_a_services_status_may_bring_annotations(self, admin: Client, namespace: str) -> None:
        spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
        await admin.create(SERVICES, {"metadata": {"name": "s"}, "spec": spec}, namespace)
        status = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
        change = {"metadata": {"annotations": {"a": "b"}}, "status": status, "spec": {"sessionAffinity": "ClientIP"}}
        changed = await admin.patch(SERVICES, "s", namespace, change, subresource="status")
        assert changed["metadata"]["annotations"] == {"a": "b"}
        assert changed["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.1"
        assert changed["spec"]["sessionAffinity"] == "None"


class TestApplying:
    async def test_apply_creates_owns_and_conflicts(self, admin: Client, namespace: str) -> None:
        config = config_map("a", x="1")
        made = await admin.patch(CONFIG_MAPS, "a", namespace, config, kind="apply", field_manager="one")
        [entry] = made["metadata"]["managedFields"]
        assert (entry["manager"], entry["operation"]) == ("one", "Apply")
        assert entry["fieldsV1"] == {"f:data": {"f:x": {}}}
        other = config_map("a", x="2")
        error = await refused(admin.patch(CONFIG_MAPS, "a", namespace, other, kind="apply", field_manager="two"))
        assert (error.code, error.reason) == (409, "Conflict")
        assert error.message == 'Apply failed with 1 conflict: conflict with "one": .data.x'
        forced = await admin.patch(CONFIG_MAPS, "a", namespace, other, kind="apply", field_manager="two", force=True)
        assert forced["data"] == {"x": "2"}

    async def test_what_is_no_longer_applied_goes(self, admin: Client, namespace: str) -> None:
        for data in ({"x": "1", "y": "1"}, {"x": "1"}):
            after = await admin.patch(
                CONFIG_MAPS, "a", namespace, config_map("a", **data), kind="apply", field_manager="one"
            )
        assert after["data"] == {"x": "1"}


class TestDeleting:
    async def test_finalizers_hold(self, admin: Client, namespace: str) -> None:
        body = config_map("a")
        body["metadata"]["finalizers"] = ["example.com/f"]
        await admin.create(CONFIG_MAPS, body, namespace)
        await admin.delete(CONFIG_MAPS, "a", namespace)
        held = await admin.get(CONFIG_MAPS, "a", namespace)
        assert held["metadata"]["deletionTimestamp"] and held["metadata"]["deletionGracePeriodSeconds"] == 0
        await admin.patch(CONFIG_MAPS, "a", namespace, {"metadata": {"finalizers": None}})
        assert (await refused(admin.get(CONFIG_MAPS, "a", namespace))).reason == "NotFound"

    async def test_preconditions(self, admin: Client, namespace: str) -> None:
        await admin.create(CONFIG_MAPS, config_map("a"), namespace)
        error = await refused(admin.delete(CONFIG_MAPS, "a", namespace, uid="wrong"))
        assert (error.code, error.reason) == (409, "Conflict")

    async def test_a_bound_pod_waits_for_its_kubelet(self, admin: Client, namespace: str) -> None:
        body = pod("p")
        body["spec"]["nodeName"] = "somewhere"
        await admin.create(PODS, body, namespace)
        await admin.delete(PODS, "p", namespace)
        held = await admin.get(PODS, "p", namespace)
        assert held["metadata"]["deletionGracePeriodSeconds"] == 30
        await admin.delete(PODS, "p", namespace, grace_period=0)
        assert (await refused(admin.get(PODS, "p", namespace))).reason == "NotFound"

    async def test_a_namespace_waits_for_its_content(self, admin: Client) -> None:
        made = await admin.create(NAMESPACES, {"metadata": {"generateName": "gone-"}})
        name = made["metadata"]["name"]
        await admin.delete(NAMESPACES, name)
        held = await admin.get(NAMESPACES, name)
        assert held["status"]["phase"] == "Terminating"
        error = await refused(admin.create(CONFIG_MAPS, config_map("a"), name))
        assert (error.code, error.reason) == (403, "Forbidden")
        held["spec"]["finalizers"] = []
        await admin.update(NAMESPACES, held, subresource="finalize")
        assert (await refused(admin.get(NAMESPACES, name))).reason == "NotFound"

    async def test_a_collection_by_label(self, admin: Client, namespace: str) -> None:
        for number in range(6):
            body = config_map(f"c{number}")
            body["metadata"]["labels"] = {"even": str(number % 2 == 0).lower()}
            await admin.create(CONFIG_MAPS, body, namespace)
        await admin.delete_collection(CONFIG_MAPS, namespace, label_selector="even=true")
        left = await admin.list(CONFIG_MAPS, namespace)
        assert [each["metadata"]["name"] for each in left["items"]] == ["c1", "c3", "c5"]


class TestBadInput:
    async def test_an_unknown_kind(self, admin: Client) -> None:
        error = await refused(admin.list(GroupVersionResource("", "v1", "nonsense")))
        assert (error.code, error.reason) == (404, "NotFound")

    async def test_garbage(self, admin: Client, namespace: str) -> None:
        path = CONFIG_MAPS.path(namespace)
        error = await refused(admin.call("POST", path, body=b"{nonsense"))
        assert (error.code, error.reason) == (400, "BadRequest")

    @pytest.mark.parametrize("metadata", ["a", 1, [], [{}]])
    @pytest.mark.parametrize("method", ["POST", "PUT"])
    async def test_metadata_that_is_none(self, admin: Client, namespace: str, method: str, metadata: Any) -> None:
        """Of a kind that a PUT may create."""
        path = LEASES.path(namespace, "" if method == "POST" else "a")
        error = await refused(admin.call(method, path, body={"metadata": metadata}))
        assert (error.code, error.reason) == (400, "BadRequest")

    @pytest.mark.parametrize(
        ("media", "patch"),
        [
            ("merge-patch+json", b'{"kind": 1}'),
            ("strategic-merge-patch+json", b'{"apiVersion": {}}'),
            ("merge-patch+json", b'{"data": ' + b'{"a":' * 300 + b"1" + b"}" * 301),
            ("json-patch+json", b'[{"op": "replace", "path": "/kind", "value": 1}]'),
            ("apply-patch+yaml", b"{apiVersion: v1, kind: ConfigMap, data: {a: 18446744073709551616}}"),
            ("apply-patch+yaml", b"{apiVersion: v1, kind: ConfigMap, data: {a: " + b"9" * 40 + b"}}"),
        ],
    )
    async def test_patches_that_lead_nowhere(self, admin: Client, namespace: str, media: str, patch: bytes) -> None:
        await admin.create(CONFIG_MAPS, config_map("a"), namespace)
        path, query = CONFIG_MAPS.path(namespace, "a"), {"fieldManager": "m"}
        error = await refused(admin.call("PATCH", path, query=query, body=patch, content_type=f"application/{media}"))
        typed = "failed to create typed patch object"  # which upstream calls an error of its own
        assert error.code in (400, 422) or error.message.startswith(typed), error.message

    async def test_quantities_beyond_measure(self, admin: Client, namespace: str) -> None:
        limit = {
            "type": "Container",
            "min": {"cpu": "1m"},
            "max": {"cpu": "1e400"},
            "maxLimitRequestRatio": {"cpu": "2"},
        }
        ranges = f"/api/v1/namespaces/{namespace}/limitranges"
        made = await admin.call("POST", ranges, body={"metadata": {"name": "a"}, "spec": {"limits": [limit]}})
        assert made["spec"]["limits"][0]["maxLimitRequestRatio"] == {"cpu": "2"}

    async def test_too_much(self, admin: Client, namespace: str) -> None:
        error = await refused(admin.create(CONFIG_MAPS, config_map("a", x="y" * (10 << 20)), namespace))
        assert (error.code, error.reason) == (413, "RequestEntityTooLarge")

    async def test_an_unknown_field_under_strict(self, admin: Client, namespace: str) -> None:
        body = {**config_map("a"), "bogus": 1}
        error = await refused(
            admin.call("POST", CONFIG_MAPS.path(namespace), query={"fieldValidation": "Strict"}, body=body)
        )
        assert error.code == 400
        assert error.message.endswith('strict decoding error: unknown field "bogus"')
        twice = b'{"metadata": {"name": "a"}, "bogus": 1, "data": {"a": "1"}, "data": {"a": "2"}}'
        error = await refused(
            admin.call("POST", CONFIG_MAPS.path(namespace), query={"fieldValidation": "Strict"}, body=twice)
        )
        assert error.message.endswith('strict decoding error: unknown field "bogus", duplicate field "data"')

    async def test_what_is_only_answered_has_no_table(self, admin: Client) -> None:
        review = {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        table = "application/json;as=Table;v=v1;g=meta.k8s.io"
        assert (await refused(admin.call("POST", path, body=review, accept=table))).code == 406
        assert "status" in await admin.call("POST", path, body=review, accept=f"{table},application/json")


class TestWho:
    async def test_nobody(self, world: World) -> None:
        async with world.client("") as nobody:
            error = await refused(nobody.list(PODS))
        assert (error.code, error.reason) == (403, "Forbidden")
        assert error.message == (
            'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" at the cluster '
            "scope"
        )

    async def test_a_wrong_token(self, world: World) -> None:
        async with world.client(token="nonsense") as nobody:
            error = await refused(nobody.list(PODS))
        assert (error.code, error.reason) == (401, "Unauthorized")

    async def test_roles_allow_what_they_say(self, admin: Client, world: World, namespace: str) -> None:
        roles = GroupVersionResource("rbac.authorization.k8s.io", "v1", "roles")
        bindings = GroupVersionResource("rbac.authorization.k8s.io", "v1", "rolebindings")
        rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}
        await admin.create(roles, {"metadata": {"name": "reader"}, "rules": [rule]}, namespace)
        binding = {
            "metadata": {"name": "joe"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "joe"}],
        }
        async with world.client("joe") as joe:
            assert (await refused(joe.list(CONFIG_MAPS, namespace))).code == 403
            await admin.create(bindings, binding, namespace)
            assert (await joe.list(CONFIG_MAPS, namespace))["items"] == []
            assert (await refused(joe.create(CONFIG_MAPS, config_map("a"), namespace))).code == 403
            assert (await refused(joe.list(CONFIG_MAPS, "default"))).code == 403
            await admin.delete(bindings, "joe", namespace)
            assert (await refused(joe.list(CONFIG_MAPS, namespace))).code == 403

    async def test_a_service_account_token_lives_with_its_account(
        self, admin: Client, world: World, namespace: str
    ) -> None:
        accounts = GroupVersionResource("", "v1", "serviceaccounts")
        request = await admin.create(
            accounts, {"spec": {"expirationSeconds": 600}}, namespace, name="default", subresource="token"
        )
        token = request["status"]["token"]
        reviews = GroupVersionResource("authentication.k8s.io", "v1", "selfsubjectreviews")
        async with world.client(token=token) as account:
            me = await account.create(reviews, {})
            assert me["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"
            await admin.delete(accounts, "default", namespace)
            assert (await refused(account.create(reviews, {}))).code == 401


async def test_the_data_of_controller_revisions_is_what_go_would_write(admin: Client, namespace: str) -> None:
    """Go's clients find the present revision by comparing bytes, and their encoder escapes what HTML does not bear."""
    command = "a && b <in >out \u2028"
    made = {"metadata": {"name": "r"}, "revision": 1, "data": {"command": command}}
    await admin.create(CONTROLLER_REVISIONS, made, namespace)
    path = CONTROLLER_REVISIONS.path(namespace, "r")
    expected = rb'"data":{"command":"a \u0026\u0026 b \u003cin \u003eout \u2028"}'
    assert expected in (await admin.request("GET", path)).body
    wire = await admin.request("GET", path, accept="application/vnd.kubernetes.protobuf")
    assert expected.removeprefix(b'"data":') in wire.body
    assert (await admin.get(CONTROLLER_REVISIONS, "r", namespace))["data"]["command"] == command


async def test_annotations_of_a_deployment_count_as_a_change(admin: Client, namespace: str) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    deployments = GroupVersionResource("apps", "v1", "deployments")
    await admin.create(deployments, {"metadata": {"name": "d"}, "spec": spec}, namespace)
    changed = await admin.patch(deployments, "d", namespace, {"metadata": {"annotations": {"a": "b"}}})
    assert changed["metadata"]["generation"] == 2
    changed = await admin.patch(deployments, "d", namespace, {"metadata": {"labels": {"a": "b"}}})
    assert changed["metadata"]["generation"] == 2
