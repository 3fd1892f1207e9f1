"""Labels of nodes: which a kubelet may set, which have newer names, and the warnings that say so."""

from __future__ import annotations

from shipwheel.api.meta import Obj
from shipwheel.api.names import is_valid_label_value

DEPRECATED = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": ('deprecated since v1.17; use "topology.kubernetes.io/region" instead'),
    "failure-domain.beta.kubernetes.io/zone": ('deprecated since v1.17; use "topology.kubernetes.io/zone" instead'),
    "beta.kubernetes.io/instance-type": ('deprecated since v1.17; use "node.kubernetes.io/instance-type" instead'),
    "app.kubernetes.io/created-by": "deprecated since v1.9",
    "scheduler.alpha.kubernetes.io/preferAvoidPods": "deprecated since v1.22; use Taints and Tolerations instead",
    "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
}


KUBELET_LABELS = (
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
)
KUBELET_PREFIXES = ("kubelet.kubernetes.io", "node.kubernetes.io")


def may_label(key: str) -> bool:
    """Whether a kubelet may set this label on its node: not those of `kubernetes.io` and `k8s.io`, with exceptions."""
    domain, slash, _ = key.partition("/")
    if not slash or key in KUBELET_LABELS:
        return True
    if any(domain == prefix or domain.endswith(f".{prefix}") for prefix in KUBELET_PREFIXES):
        return True
    return not (domain in ("kubernetes.io", "k8s.io") or domain.endswith((".kubernetes.io", ".k8s.io")))


def term_warnings(term: Obj, path: str, *, check_values: bool = False) -> list[str]:
    """What to say of a node selector's term."""
    warnings = []
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        here, key = f"{path}.matchExpressions[{index}]", expression.get("key", "")
        if key in DEPRECATED:
            warnings.append(f"{here}.key: {key} is {DEPRECATED[key]}")
        if check_values:
            warnings += [
                f"{here}.values[{position}]: {value} is invalid, {complaint}"
                for position, value in enumerate(expression.get("values") or ())
                for complaint in is_valid_label_value(value)
            ]
    return warnings


def label_selector_warnings(selector: Obj | None, path: str) -> list[str]:
    """What to say of a label selector that selects nodes."""
    warnings = term_warnings(selector or {}, path)
    for label in (selector or {}).get("matchLabels") or ():
        if label in DEPRECATED:
            warnings.append(f"{path}.matchLabels.{label}: {DEPRECATED[label]}")
    return warnings
