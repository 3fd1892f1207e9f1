"""The authorizers in order: the first that allows, or denies outright, decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from shipwheel.api.resource import Attributes, Decision

SUPERUSERS = "system:masters"
ALWAYS_ALLOWED = frozenset({"/healthz", "/livez", "/readyz"})

Ask = Callable[[Attributes], Decision | Awaitable[Decision]]


class Authorizer:
    """`always_allow_paths` are open to everybody; members of system:masters may do anything."""

    def __init__(self, authorizers: Sequence[Ask], *, always_allow_paths: frozenset[str] = frozenset()) -> None:
        self._authorizers = tuple(authorizers)
        self._open = always_allow_paths

    async def authorize(self, ask: Attributes) -> Decision:
        if SUPERUSERS in ask.user.groups:
            return Decision(True)
        if not ask.is_resource and ask.path in self._open:
            return Decision(True)
        reasons = []
        for authorizer in self._authorizers:
            decision = authorizer(ask)
            if not isinstance(decision, Decision):
                decision = await decision
            if decision.allowed:
                return decision
            if decision.denied:
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision(False, ", ".join(reasons))
