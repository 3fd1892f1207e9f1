"""What a Job's policies say of a failed pod (KEP-3329) and of the indexes that have succeeded (KEP-3998)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shipwheel.api.meta import Obj, name_of, namespace_of
from shipwheel.controllers.job.indexes import Indexes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the pod failure policy makes of a failed pod."""

    counts: bool = True
    """Towards the back-off limit."""
    action: str = ""
    """Of the rule that matched; empty when none did."""
    fails_job: str = ""
    """Why the whole Job fails; empty when it does not."""


def judge_failure(policy: Obj | None, pod: Obj) -> Verdict:
    """The first rule that matches decides; without one the failure counts."""
    for index, rule in enumerate((policy or {}).get("rules") or ()):
        what = _matches(rule, pod)
        if not what:
            continue
        action = rule["action"]
        if action == "FailJob":
            return Verdict(True, action, f"{what} matching {action} rule at index {index}")
        return Verdict(action != "Ignore", action)
    return Verdict()


def _matches(rule: Obj, pod: Obj) -> str:
    """What of the pod matches a rule; empty when nothing does."""
    status = pod.get("status") or {}
    whole_name = f"{namespace_of(pod)}/{name_of(pod)}"
    exit_codes = rule.get("onExitCodes")
    if exit_codes is not None:
        for key in ("containerStatuses", "initContainerStatuses"):
            container = _matching_container(exit_codes, status.get(key) or ())
            if container is not None:
                code = container["state"]["terminated"]["exitCode"]
                return f"Container {container['name']} for pod {whole_name} failed with exit code {code}"
        return ""
    wanted = {(each["type"], each.get("status", "True")) for each in rule.get("onPodConditions") or ()}
    for entry in status.get("conditions") or ():
        if (entry["type"], entry["status"]) in wanted:
            return f"Pod {whole_name} has condition {entry['type']}"
    return ""


def _matching_container(requirement: Obj, statuses: Iterable[Obj]) -> Obj | None:
    for status in statuses:
        terminated = (status.get("state") or {}).get("terminated")
        if terminated is None or requirement.get("containerName") not in (None, status["name"]):
            continue
        code = terminated.get("exitCode", 0)
        if code and (code in requirement["values"]) == (requirement["operator"] == "In"):
            return status
    return None


def success_rule_met(policy: Obj | None, succeeded: Indexes, completions: int) -> str:
    """Which rule of the success policy is met, as the condition's message; empty when none is."""
    if not len(succeeded):
        return ""
    for index, rule in enumerate((policy or {}).get("rules") or ()):
        count = rule.get("succeededCount")
        if rule.get("succeededIndexes") is not None:
            required = Indexes.parse(rule["succeededIndexes"], completions)
            common = required.common(succeeded)
            met = bool(required.intervals) and (common == len(required) or (count is not None and common >= count))
        else:
            met = count is not None and len(succeeded) >= count
        if met:
            return f"Matched rules at index {index}"
    return ""
