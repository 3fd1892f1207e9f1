"""HTTP extenders: other programs that have a say in where pods go (`kube-scheduler/extender/v1`).

An extender that hangs, dies or answers nonsense fails the pod's attempt, unless it is `ignorable`: then it is as if it
had not been asked.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, name_of, namespace_of
from shipwheel.client.client import Client
from shipwheel.client.httpclient import ConnectionFailed
from shipwheel.client.kubeconfig import ClientConfig, ConfigError
from shipwheel.scheduler.configuration import ExtenderConfig

MAX_SCORE = 10
"""Of an extender; a tenth of ours."""
USER_AGENT = "kube-scheduler-extender"


class ExtenderError(Exception):
    """The extender could not be asked, or said nothing that can be used."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """What is left of the nodes, and why others are not."""

    nodes: Sequence[str]
    failed: Mapping[str, str] = field(default_factory=dict)
    unresolvable: Mapping[str, str] = field(default_factory=dict)


class Extender:
    """One extender; `close()` it in the end."""

    def __init__(self, config: ExtenderConfig) -> None:
        self.config = config
        self._resources = frozenset(name for name, _ in config.managed_resources)
        self._client = Client(_connection(config), user_agent=USER_AGENT)

    @property
    def name(self) -> str:
        return self.config.url_prefix

    async def close(self) -> None:
        await self._client.close()

    def wants(self, pod: Obj) -> bool:
        """Whether the pod is any of its business: it manages all pods, or a resource that the pod asks for."""
        if not self._resources:
            return True
        containers = [*(pod["spec"].get("containers") or ()), *(pod["spec"].get("initContainers") or ())]
        asked: set[str] = set()
        for each in containers:
            resources = each.get("resources") or {}
            asked |= set(resources.get("requests") or ()) | set(resources.get("limits") or ())
        return bool(asked & self._resources)

    async def filter(self, pod: Obj, nodes: Sequence[Obj]) -> Filtered:
        """The nodes that are good enough for it. ExtenderError when it cannot be known."""
        names = [name_of(each) for each in nodes]
        answer = await self._ask(self.config.filter_verb, {"pod": pod, **self._nodes(nodes)})
        if answer.get("error"):
            raise ExtenderError(answer["error"])
        if self.config.node_cache_capable and answer.get("nodenames") is not None:
            left = list(answer["nodenames"])
        else:
            left = [name_of(each) for each in (answer.get("nodes") or {}).get("items") or ()]
        strange = set(left) - set(names)
        if strange:
            raise ExtenderError(f'extender "{self.name}" claims a filtered node "{min(strange)}" which is not found')
        return Filtered(left, answer.get("failedNodes") or {}, answer.get("failedAndUnresolvableNodes") or {})

    async def prioritize(self, pod: Obj, nodes: Sequence[Obj]) -> dict[str, int]:
        """Weighted scores by node, on our scale."""
        answer = await self._ask(self.config.prioritize_verb, {"pod": pod, **self._nodes(nodes)})
        if not isinstance(answer, list):
            raise ExtenderError(f'extender "{self.name}": the scores are no list')
        factor = self.config.weight * 100 // MAX_SCORE
        try:
            return {each["host"]: int(each["score"]) * factor for each in answer}
        except (KeyError, TypeError, ValueError) as error:
            raise ExtenderError(f'extender "{self.name}": a score cannot be read: {error}') from error

    async def bind(self, pod: Obj, node: str) -> None:
        """Let it bind the pod."""
        answer = await self._ask(
            self.config.bind_verb,
            {
                "podName": name_of(pod),
                "podNamespace": namespace_of(pod),
                "podUID": pod["metadata"]["uid"],
                "node": node,
            },
        )
        if answer.get("error"):
            raise ExtenderError(answer["error"])

    async def preempt(self, pod: Obj, victims: Mapping[str, Sequence[Obj]]) -> dict[str, set[str]]:
        """What is left of (node, pods that would go), as uids by node."""
        if self.config.node_cache_capable:
            key = "nodeNameToMetaVictims"
            told = {
                node: {"pods": [{"uid": each["metadata"]["uid"]} for each in pods], "numPDBViolations": 0}
                for node, pods in victims.items()
            }
        else:
            key = "nodeNameToVictims"
            told = {node: {"pods": list(pods), "numPDBViolations": 0} for node, pods in victims.items()}
        answer = await self._ask(self.config.preempt_verb, {"pod": pod, key: told})
        found = answer.get("nodeNameToMetaVictims") or {}
        return {node: {each["uid"] for each in (one or {}).get("pods") or ()} for node, one in found.items()}

    def _nodes(self, nodes: Sequence[Obj]) -> Obj:
        if self.config.node_cache_capable:
            return {"nodenames": [name_of(each) for each in nodes]}
        return {"nodes": {"apiVersion": "v1", "kind": "NodeList", "metadata": {}, "items": list(nodes)}}

    async def _ask(self, verb: str, body: Obj) -> Obj:
        path = f"/{verb.lstrip('/')}"
        try:
            async with asyncio.timeout(self.config.timeout):
                answer = await self._client.call("POST", path, body=body, timeout=self.config.timeout)
        except TimeoutError as error:
            what = f'Post "{self.name}{path}"'
            raise ExtenderError(f"{what}: context deadline exceeded (Client.Timeout exceeded)") from error
        except (ApiError, ConnectionFailed, ConfigError) as error:
            raise ExtenderError(f"failed to {verb} with extender at URL {self.name}: {error}") from error
        if not isinstance(answer, dict | list):
            raise ExtenderError(f'extender "{self.name}": the answer is no object')
        return answer


def _connection(config: ExtenderConfig) -> ClientConfig:
    tls = config.tls

    def pem(kind: str) -> bytes:
        if tls.get(f"{kind}Data"):
            return base64.b64decode(tls[f"{kind}Data"])
        return Path(tls[f"{kind}File"]).read_bytes() if tls.get(f"{kind}File") else b""

    return ClientConfig(
        server=config.url_prefix,
        ca_data=pem("ca"),
        client_cert_data=pem("cert"),
        client_key_data=pem("key"),
        insecure=bool(tls.get("insecure")),
        tls_server_name=tls.get("serverName", ""),
    )
