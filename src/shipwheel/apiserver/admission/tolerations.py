"""What keeps pods on nodes that fail for a while, and off new ones: DefaultTolerationSeconds, TaintNodesByCondition."""

from __future__ import annotations

from shipwheel.api.meta import GroupResource
from shipwheel.apiserver.admission.chain import Attempt, Plugin

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
SECONDS = 300


class DefaultTolerationSeconds(Plugin):
    name = "DefaultTolerationSeconds"
    kinds = frozenset({GroupResource("", "pods")})

    async def mutate(self, attempt: Attempt) -> None:
        pod = attempt.obj
        if pod is None or not attempt.concerns("", "pods"):
            return
        tolerations = pod["spec"].get("tolerations") or []
        for key in (NOT_READY, UNREACHABLE):
            tolerated = any(
                each.get("key", "") in (key, "") and each.get("effect", "") in ("NoExecute", "") for each in tolerations
            )
            if not tolerated:
                tolerations = [
                    *tolerations,
                    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS},
                ]
        if tolerations:
            pod["spec"]["tolerations"] = tolerations


class TaintNodesByCondition(Plugin):
    """A new node is not ready, whatever it says, until the node lifecycle controller has seen its conditions."""

    name = "TaintNodesByCondition"
    kinds = frozenset({GroupResource("", "nodes")})

    async def mutate(self, attempt: Attempt) -> None:
        node = attempt.obj
        if attempt.operation != "CREATE" or not attempt.concerns("", "nodes") or node is None:
            return
        taints = node.setdefault("spec", {}).get("taints") or []
        if not any(taint.get("key") == NOT_READY and taint.get("effect") == "NoSchedule" for taint in taints):
            node["spec"]["taints"] = [*taints, {"key": NOT_READY, "effect": "NoSchedule"}]
