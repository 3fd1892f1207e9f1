"""Kubeconfig files and credentials: what a context means, and who we say we are."""

from __future__ import annotations

import base64
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import Obj
from shipwheel.client import kubeconfig
from shipwheel.client.client import Client
from shipwheel.client.credentials import Credentials, tls_context
from shipwheel.client.httpserver import Request, Response
from shipwheel.client.kubeconfig import ClientConfig, ConfigError, ExecPlugin, client_config, merge
from tests.client.wire import serving


def config(**user: object) -> Obj:
    return {
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": "https://h:1"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "ns"}}],
    }


def user(body: Obj) -> Obj:
    return {"users": [{"name": "u", "user": body}]}


class TestReading:
    def test_a_context(self) -> None:
        found = client_config(config(token="t"))
        assert (found.server, found.token, found.namespace) == ("https://h:1", "t", "ns")
        assert client_config(config(), server="https://other").server == "https://other"
        assert client_config({}, server="http://alone") == ClientConfig(server="http://alone")

    def test_material_inline_and_in_files(self, tmp_path: Path) -> None:
        (tmp_path / "ca").write_bytes(b"CA")
        (tmp_path / "key").write_bytes(b"KEY")
        data = config(**{"client-certificate-data": base64.b64encode(b"CERT").decode(), "client-key": "key"})
        data["clusters"][0]["cluster"]["certificate-authority"] = "ca"
        (tmp_path / "config").write_text(yaml.safe_dump(data))
        found = kubeconfig.load_config(tmp_path / "config")
        assert (found.ca_data, found.client_cert_data, found.client_key_data) == (b"CA", b"CERT", b"KEY")

    def test_impersonation(self) -> None:
        user = {"as": "a", "as-uid": "1", "as-groups": ["g", "h"], "as-user-extra": {"x/y": ["z"]}}
        assert client_config(config(**user)).impersonate == (
            ("Impersonate-User", "a"), ("Impersonate-Uid", "1"), ("Impersonate-Group", "g"),
            ("Impersonate-Group", "h"), ("Impersonate-Extra-x%2Fy", "z"),
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"current-context": ""}, "no configuration has been provided"),
            ({"current-context": "there"}, 'context "there" does not exist'),
            ({"clusters": []}, 'cluster "c" does not exist'),
            ({"users": []}, 'auth info "u" does not exist'),
            ({"clusters": [{"name": "c", "cluster": {}}]}, 'cluster has no server defined: "c"'),
            ({"clusters": [{"name": "c", "cluster": {"server": "s", "proxy-url": "p"}}]}, "proxy-url is not supported"),
            (
                {"clusters": [{"name": "c", "cluster": {
                    "server": "s", "insecure-skip-tls-verify": True, "certificate-authority-data": "QQ=="}}]},
                "root certificates file with the insecure flag",
            ),
            (user({"auth-provider": {"name": "x"}}), "auth-provider is no longer supported"),
            (user({"client-key-data": "QQ=="}), "must be given together"),
            (user({"client-key-data": "!"}), "client-key-data: illegal base64 data"),
            (user({"client-key": "/none"}), "unable to read client-key /none: No such file"),
            (user({"exec": {"args": []}}), "command must be specified"),
            (user({"exec": {"command": "c", "apiVersion": "v9"}}), 'invalid apiVersion "v9"'),
        ],
    )  # fmt: skip
    def test_what_cannot_be_used(self, change: Obj, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            client_config({**config(), **change})

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "yaml: "),
            ("- a", "not a mapping"),
            ("kind: Pod", 'no kind "Pod" is registered'),
            ("clusters: a", "clusters: not a list of names"),
            ("users: [{user: {}}]", "users: not a list of names"),
        ],
    )
    def test_what_is_no_kubeconfig(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "config"
        path.write_text(text)
        with pytest.raises(ConfigError, match=message) as caught:
            kubeconfig.load_config(path)
        assert str(caught.value).startswith(f'error loading config file "{path}": ')

    def test_where_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert kubeconfig.default_paths({"HOME": "/h"}) == [Path("/h/.kube/config")]
        assert kubeconfig.default_paths({"KUBECONFIG": "/a::/b"}) == [Path("/a"), Path("/b")]
        monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none:{tmp_path}/some")
        kubeconfig.write_file(tmp_path / "some", config(token="t"))
        assert kubeconfig.load_config().token == "t"
        with pytest.raises(FileNotFoundError):
            kubeconfig.load_config(tmp_path / "none")


class TestInACluster:
    def test_a_pods_own(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("t")
        (tmp_path / "ca.crt").write_text("CA")
        (tmp_path / "namespace").write_text("ns\n")
        environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
        found = kubeconfig.in_cluster_config(environ, tmp_path)
        assert (found.server, found.ca_data, found.namespace) == ("https://[fd00::1]:443", b"CA", "ns")
        assert found.token_file == str(tmp_path / "token")

    def test_outside(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="must be defined"):
            kubeconfig.in_cluster_config({}, tmp_path)
        environ = {"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "443"}
        with pytest.raises(ConfigError, match="no such file or directory"):
            kubeconfig.in_cluster_config(environ, tmp_path)


class TestMerging:
    def test_the_first_to_say_something_wins(self) -> None:
        first = {"users": [{"name": "u", "user": {"token": "1"}}]}
        second = {**config(token="2"), "users": [{"name": "u", "user": {"token": "2"}}, {"name": "v", "user": {}}]}
        merged = merge([first, second, {"current-context": "other"}])
        assert merged["current-context"] == "here"
        assert merged["users"] == [{"name": "u", "user": {"token": "1"}}, {"name": "v", "user": {}}]
        assert client_config(merged).token == "1"

    def test_into_a_file_and_out_again(self, tmp_path: Path) -> None:
        path = tmp_path / "deep/config"
        mine = kubeconfig.to_kubeconfig(ClientConfig(server="https://mine", token="t", namespace="ns"), "mine")
        kubeconfig.merge_into_file(path, config(token="theirs"))
        kubeconfig.merge_into_file(path, mine)
        kubeconfig.merge_into_file(path, mine)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert kubeconfig.load_config(path).server == "https://mine"
        assert kubeconfig.load_config(path, context="here").token == "theirs"
        kubeconfig.remove_from_file(path, "mine")
        written = yaml.safe_load(path.read_text())
        assert [each["name"] for each in written["contexts"]] == ["here"]
        assert written["current-context"] == ""
        kubeconfig.remove_from_file(tmp_path / "none", "mine")
        assert [each.name for each in path.parent.iterdir()] == ["config"]

    def test_what_is_written_says_the_same(self) -> None:
        full = ClientConfig(
            server="https://s", ca_data=b"CA", client_cert_data=b"C", client_key_data=b"K", token="t", token_file="/f",
            tls_server_name="n", namespace="ns",
        )  # fmt: skip
        assert client_config(kubeconfig.to_kubeconfig(full, "x", user="me")) == full
        unsafe = ClientConfig(server="https://s", insecure=True)
        assert client_config(kubeconfig.to_kubeconfig(unsafe, "x")) == unsafe


def plugin(tmp_path: Path, script: str, **rest: object) -> ClientConfig:
    path = tmp_path / "plugin.py"
    path.write_text(script)
    exec_plugin = ExecPlugin("client.authentication.k8s.io/v1", sys.executable, (str(path),), **rest)  # type: ignore[arg-type]
    return ClientConfig(server="https://s", ca_data=b"CA", exec_plugin=exec_plugin)


PRINTS = """
import json, os, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["kind"] == "ExecCredential" and info["spec"]["interactive"] is False
with open(os.path.join(os.path.dirname(sys.argv[0]), "count"), "a+") as file:
    file.write("x")
    file.seek(0)
    count = len(file.read())
token = os.environ.get("PREFIX", "") + str(count) + json.dumps(info["spec"].get("cluster", {}).get("server"))
print(json.dumps({"status": {"token": token, "expirationTimestamp": "2026-01-01T00:10:00Z"}}))
"""


class TestCredentials:
    async def test_what_is_fixed(self) -> None:
        clock = ManualClock()
        assert await Credentials(ClientConfig(server="s"), clock).headers() == ()
        token = Credentials(ClientConfig(server="s", token="t", impersonate=(("Impersonate-User", "u"),)), clock)
        assert await token.headers() == (("Authorization", "Bearer t"), ("Impersonate-User", "u"))
        assert not token.refused()
        basic = Credentials(ClientConfig(server="s", username="u", password="p"), clock)
        assert await basic.headers() == (("Authorization", "Basic dTpw"),)

    async def test_a_token_file_is_read_again(self, tmp_path: Path) -> None:
        clock = ManualClock()
        file = tmp_path / "token"
        file.write_text("1\n")
        found = Credentials(ClientConfig(server="s", token="x", token_file=str(file)), clock)
        assert await found.headers() == (("Authorization", "Bearer 1"),)
        file.write_text("2")
        assert await found.headers() == (("Authorization", "Bearer 1"),)
        await clock.advance(61)
        assert await found.headers() == (("Authorization", "Bearer 2"),)
        file.write_text("3")
        assert found.refused()
        assert await found.headers() == (("Authorization", "Bearer 3"),)

    async def test_a_token_file_that_is_missing_or_empty(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        found = Credentials(ClientConfig(server="s", token_file=str(file)), ManualClock())
        with pytest.raises(ConfigError, match=r"failed to read token file .*: No such file"):
            await found.headers()
        file.write_text("\n")
        with pytest.raises(ConfigError, match="read empty token from file"):
            await found.headers()

    async def test_a_plugin_is_asked_once_until_its_token_expires(self, tmp_path: Path) -> None:
        clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        config = plugin(tmp_path, PRINTS, env=(("PREFIX", "p"),), provide_cluster_info=True)
        found = Credentials(config, clock)
        for _ in range(2):
            assert await found.headers() == (("Authorization", 'Bearer p1"https://s"'),)
        await clock.advance(595)
        assert await found.headers() == (("Authorization", 'Bearer p2"https://s"'),)

    async def test_a_plugin_may_give_a_certificate(self, tmp_path: Path) -> None:
        config = plugin(tmp_path, 'print(\'{"status": {"clientCertificateData": "C", "clientKeyData": "K"}}\')')
        found = Credentials(config, ManualClock())
        assert await found.headers() == ()
        assert found.certificate == (b"C", b"K")

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            ("raise SystemExit(3)", "failed with exit code 3"),
            ("print('hello')", "decoding stdout"),
            ("print('{}')", "decoding stdout"),
            ("print('[]')", "decoding stdout"),
            ("""print('{"status": {"token": "t", "expirationTimestamp": "soon"}}')""", "decoding stdout"),
            ("""print('{"status": {"clientCertificateData": "C"}}')""", "decoding stdout"),
        ],
    )
    async def test_plugins_that_fail(self, tmp_path: Path, script: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            await Credentials(plugin(tmp_path, script), ManualClock()).headers()

    async def test_a_plugin_that_is_not_there(self) -> None:
        missing = ExecPlugin("client.authentication.k8s.io/v1", "/no/such", install_hint="Install it.")
        with pytest.raises(ConfigError, match=r"executable /no/such failed: No such file or directory\n\nInstall it\."):
            await Credentials(ClientConfig(server="s", exec_plugin=missing), ManualClock()).headers()

    async def test_a_refused_token_is_read_again_at_once(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("old")
        seen: list[str] = []

        async def handler(request: Request) -> Response:
            seen.append(request.header("authorization"))
            file.write_text("new")
            return Response(200 if seen[-1] == "Bearer new" else 401, b"{}")

        async with serving(handler) as wire:
            config = ClientConfig(server=f"http://127.0.0.1:{wire.port}/prefix", token_file=str(file))
            async with Client(config, user_agent="t") as client:
                assert await client.version() == {}
        assert seen == ["Bearer old", "Bearer new"]

    @pytest.mark.parametrize(
        ("config", "certificate", "message"),
        [
            (ClientConfig(server="s", ca_data=b"x"), (b"", b""), "unable to load root certificates"),
            (ClientConfig(server="s"), (b"x", b"y"), "tls: client certificate and key cannot be used"),
        ],
    )
    def test_what_is_no_pem(self, config: ClientConfig, certificate: tuple[bytes, bytes], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            tls_context(config, certificate)

    def test_who_does_not_care_whom_it_speaks_to(self) -> None:
        context = tls_context(ClientConfig(server="s", insecure=True), (b"", b""))
        assert not context.check_hostname
