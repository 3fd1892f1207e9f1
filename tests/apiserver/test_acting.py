"""Acting for others: impersonation, and a proxy in front that says who asks."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.client import Client
from shipwheel.client.resources import PODS
from tests.apiserver.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
CLUSTER_ROLES = GroupVersionResource("rbac.authorization.k8s.io", "v1", "clusterroles")
CLUSTER_ROLE_BINDINGS = GroupVersionResource("rbac.authorization.k8s.io", "v1", "clusterrolebindings")


async def who(client: Client, *headers: tuple[str, str]) -> Obj:
    """How the server sees the sender."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = await client.request("POST", REVIEWS, body=review, headers=headers)
    return orjson.loads(answer.body)["status"]["userInfo"]


async def refused(client: Client, *headers: tuple[str, str]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await who(client, *headers)
    return caught.value


class TestImpersonation:
    async def test_somebody_else(self, admin: Client) -> None:
        seen = await who(
            admin, ("Impersonate-User", "joe"), ("Impersonate-Group", "g"), ("Impersonate-Group", "h"),
            ("Impersonate-Uid", "1"), ("Impersonate-Extra-Some%2fkey", "x"), ("Impersonate-Extra-Some%2fkey", "y"),
        )  # fmt: skip
        assert seen == {
            "username": "joe", "uid": "1", "groups": ["g", "h", "system:authenticated"],
            "extra": {"some/key": ["x", "y"]},
        }  # fmt: skip

    async def test_a_service_account_has_its_groups(self, admin: Client) -> None:
        seen = await who(admin, ("Impersonate-User", "system:serviceaccount:ns:sa"))
        assert seen["groups"] == ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]

    async def test_nobody(self, admin: Client) -> None:
        """May see the version, as everybody may, but not who it is: that is for the authenticated."""
        nobody = ("Impersonate-User", "system:anonymous")
        assert (await admin.request("GET", "/version", headers=[nobody])).status == 200
        assert 'User "system:anonymous" cannot create resource' in (await refused(admin, nobody)).message

    async def test_their_rights_and_no_others(self, admin: Client) -> None:
        with pytest.raises(ApiError) as caught:
            await admin.request("GET", PODS.path("default"), headers=[("Impersonate-User", "joe")])
        assert caught.value.code == 403
        assert 'User "joe" cannot list resource "pods"' in caught.value.message

    @pytest.mark.parametrize(
        "header", [("Impersonate-Group", "g"), ("Impersonate-Uid", "1"), ("Impersonate-Extra-a", "b")]
    )
    async def test_without_a_user(self, admin: Client, header: tuple[str, str]) -> None:
        error = await refused(admin, header)
        assert (error.code, error.reason) == (400, "BadRequest")
        assert error.message.endswith("without impersonating a user")

    async def test_only_whom_one_may(self, admin: Client, world: World) -> None:
        rule = {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["joe"]}
        await admin.create(CLUSTER_ROLES, {"metadata": {"name": "as-joe"}, "rules": [rule]})
        binding = {
            "metadata": {"name": "as-joe"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "as-joe"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}],
        }
        await admin.create(CLUSTER_ROLE_BINDINGS, binding)
        async with world.client("jane") as jane:
            assert (await who(jane, ("Impersonate-User", "joe")))["username"] == "joe"
            for headers in (
                [("Impersonate-User", "root")],
                [("Impersonate-User", "joe"), ("Impersonate-Group", "system:masters")],
                [("Impersonate-User", "joe"), ("Impersonate-Uid", "0")],
                [("Impersonate-User", "joe"), ("Impersonate-Extra-a", "b")],
                [("Impersonate-User", "system:serviceaccount:kube-system:admin")],
            ):
                error = await refused(jane, *headers)
                assert (error.code, error.reason) == (403, "Forbidden")
                assert 'User "jane" cannot impersonate resource' in error.message


class TestFrontProxy:
    HEADERS = (
        ("X-Remote-User", "joe"), ("X-Remote-Group", "g"), ("X-Remote-Group", "h"), ("X-Remote-Extra-Some%2fkey", "x"),
    )  # fmt: skip

    def proxy(self, world: World, name: str = "front-proxy-client") -> Client:
        keys = world.directory / "pki"
        certificate, key = ((keys / f"{name}.{kind}").read_bytes() for kind in ("crt", "key"))
        config = replace(world.config(), client_cert_data=certificate, client_key_data=key)
        return Client(config, user_agent="proxy/1.0")

    async def test_says_who_asks(self, world: World) -> None:
        async with self.proxy(world) as proxy:
            seen = await who(proxy, *self.HEADERS)
        assert seen["username"] == "joe"
        assert seen["groups"] == ["g", "h", "system:authenticated"]
        assert seen["extra"] == {"some/key": ["x"]}

    async def test_is_nobody_itself(self, world: World) -> None:
        async with self.proxy(world) as proxy:
            assert (await refused(proxy)).code == 401

    async def test_nobody_else_is_believed(self, world: World) -> None:
        async with world.client("front-proxy-client") as impostor:
            assert (await who(impostor, *self.HEADERS))["username"] == "front-proxy-client"
        async with world.client("") as nobody:
            assert (await refused(nobody, *self.HEADERS)).code in (401, 403)
