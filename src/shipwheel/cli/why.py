"""`shipwheel why pod NAME`: what is printed of an explanation."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from shipwheel.cli import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shipwheel.kubelet.why import Obstacle
    from shipwheel.scheduler.why import Explanation, Verdict

SHOWN = 20
"""Nodes, unless all are asked for."""


def add_to(main: click.Group) -> None:
    main.add_command(why)


@click.group()
def why() -> None:
    """Explain what the cluster does."""


@why.command("pod")
@click.argument("name")
@click.option("-n", "--namespace", default="", help="The pod's.  [default: the context's]")
@click.option("--kubeconfig", default="", help="Which cluster.  [default: $KUBECONFIG or ~/.kube/config]")
@click.option("--context", default="", help="Which of the kubeconfig's contexts.")
@click.option("--all", "everything", is_flag=True, help="Show all nodes, not only the first ones.")
def why_pod(name: str, namespace: str, kubeconfig: str, context: str, everything: bool) -> None:
    """Say what keeps a pod from running: on its node if it has one, and what each node says to it.

    For each node it is told which rule refuses the pod, or what it scores, and what would make it fit; the decision
    is taken anew, over the cluster as it is now.
    """
    from shipwheel.api.errors import ApiError
    from shipwheel.client.client import Client
    from shipwheel.client.httpclient import ConnectionFailed
    from shipwheel.client.kubeconfig import load_config
    from shipwheel.kubelet import why as on_node
    from shipwheel.scheduler import why as of_nodes

    async def ask() -> tuple[Explanation, Sequence[Obstacle]]:
        config = load_config(kubeconfig or None, context=context)
        where = namespace or config.namespace or "default"
        async with Client(config, user_agent="shipwheel") as client:
            return await of_nodes.explain(client, where, name), await on_node.explain(client, where, name)

    with show.errors():
        try:
            explanation, obstacles = asyncio.run(ask())
        except (ApiError, ConnectionFailed) as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
    click.echo(describe(explanation, obstacles, limit=len(explanation.verdicts) if everything else SHOWN))


def describe(explanation: Explanation, obstacles: Sequence[Obstacle] = (), *, limit: int) -> str:
    """The text for an explanation, with at most `limit` nodes. `obstacles` are those on the pod's own node."""
    lines = [f"Pod {explanation.pod} {'is on ' + explanation.node if explanation.node else 'has no node'}."]
    if explanation.node:
        lines += _in_the_way(obstacles)
    if explanation.message and not explanation.node:
        lines.append(f"Last attempt: {explanation.message}")
    if explanation.rejected:
        lines.append(f"No node will do: {explanation.rejected}")
    good = [each for each in explanation.verdicts if not each.refusals and not explanation.rejected]
    bad = [each for each in explanation.verdicts if each.refusals]
    if good:
        scored = good[:limit]
        rules = sorted({rule for each in scored for rule in each.scores})
        rows = [("NODE", "SCORE", *rules)]
        for each in scored:
            mark = " *" if each.node == explanation.node else ""
            scores = (str(each.scores.get(rule, 0)) for rule in rules)
            rows.append((each.node + mark, str(each.score) if len(good) > 1 else "the only one", *scores))
        lines += ["", f"{len(good)} of {len(explanation.verdicts)} nodes will do:", *show.table(rows)]
        lines += _more(len(good), limit)
    if bad:
        lines += ["", f"{len(bad)} of {len(explanation.verdicts)} nodes will not do:"]
        for each in bad[:limit]:
            lines += _refused(each)
        lines += _more(len(bad), limit)
    if explanation.preemption:
        lines += ["", f"Preemption: {explanation.preemption}"]
    return "\n".join(lines)


def _in_the_way(obstacles: Sequence[Obstacle]) -> list[str]:
    if not obstacles:
        return ["Nothing is in its way there."]
    lines = ["", "What is in its way there:"]
    for each in obstacles:
        lines.append(f"  {each.subject}: {each.problem}")
        lines += [f"      {line}" for line in each.evidence]
        if each.remedy:
            lines.append(f"      what helps: {each.remedy}")
    return lines


def _refused(verdict: Verdict) -> list[str]:
    reasons = [f"{reason} ({rule})" for rule, reason in verdict.refusals]
    lines = [f"  {verdict.node}: {'; '.join(reasons)}"]
    if verdict.remedies:
        lines.append(f"      it would take: {'; '.join(verdict.remedies)}")
    return lines


def _more(number: int, limit: int) -> list[str]:
    return [f"  ... and {number - limit} more (--all shows them)"] if number > limit else []
