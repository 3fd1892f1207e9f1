"""Where a container's parts may lie: NUMA nodes on which each of its resources could be had, and what is common to
all of them (KEP-693). Pure.

Each manager gives hints for each resource; from every combination of them one merged hint is made (the nodes that all
agree on), and the best of those is what the managers then allocate by. The policy says whether a pod may come in
without having got what it would prefer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from shipwheel.kubelet.managers.topology import NumaNode

Policy = Literal["none", "best-effort", "restricted", "single-numa-node"]
Scope = Literal["container", "pod"]
Mask = frozenset[int]
"""Numbers of NUMA nodes."""
Hints = Mapping[str, "Sequence[Hint] | None"]
"""By resource: None where it does not matter, empty where it cannot be had."""

POLICIES: Sequence[Policy] = ("none", "best-effort", "restricted", "single-numa-node")
SCOPES: Sequence[Scope] = ("container", "pod")
MAXIMUM_NODES = 8
"""With more the number of combinations explodes."""
CLOSEST = "prefer-closest-numa-nodes"
ALLOWABLE = "max-allowable-numa-nodes"


class OptionError(ValueError):
    """A policy's option that is not known, or has a value it cannot have; the message is upstream's."""


@dataclass(frozen=True, slots=True)
class Hint:
    """`nodes` None: anywhere."""

    nodes: Mask | None = None
    preferred: bool = True


@dataclass(frozen=True, slots=True)
class Options:
    prefer_closest: bool = False
    maximum_nodes: int = MAXIMUM_NODES


def parse_bool(text: str) -> bool:
    """Go's spellings; ValueError otherwise."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_options(given: Mapping[str, str]) -> Options:
    """OptionError."""
    closest, most = False, MAXIMUM_NODES
    for name, value in given.items():
        if name == CLOSEST:
            try:
                closest = parse_bool(value)
            except ValueError as error:
                raise OptionError(f'bad value for option "{name}": {error}') from error
        elif name == ALLOWABLE:
            try:
                most = int(value)
            except ValueError as error:
                raise OptionError(
                    f'unable to convert policy option to integer "{name}": strconv.Atoi: parsing "{value}": '
                    "invalid syntax"
                ) from error
            if most < MAXIMUM_NODES:
                raise OptionError(f'the minimum value of "{name}" should not be less than {MAXIMUM_NODES}')
        else:
            raise OptionError(f'unknown Topology Manager Policy option: "{name}"')
    return Options(closest, most)


def masks(nodes: Sequence[int]) -> Iterator[Mask]:
    """Every set of nodes, the smaller first."""
    for size in range(1, len(nodes) + 1):
        for chosen in itertools.combinations(nodes, size):
            yield frozenset(chosen)


def _bits(mask: Mask) -> int:
    return sum(1 << node for node in mask)


def narrower(left: Mask, right: Mask) -> bool:
    return (len(left), _bits(left)) < (len(right), _bits(right))


@dataclass(frozen=True, slots=True)
class Merger:
    """How hints are brought together on this machine."""

    policy: Policy
    nodes: Sequence[NumaNode]
    options: Options = Options()

    def merge(self, offered: Iterable[Hints]) -> tuple[Hint, bool]:
        """(the best hint, whether the pod may come in)."""
        lists = [each for hints in offered for each in _lists(hints)]
        single = self.policy == "single-numa-node"
        if single:
            lists = [[each for each in hints if _is_single(each)] for hints in lists]
        best = self._best(lists)
        everywhere = frozenset(each.id for each in self.nodes)
        if best is None:
            best = Hint(everywhere, preferred=False)
        if single and best.nodes == everywhere:
            best = Hint(None, best.preferred)
        return best, best.preferred or self.policy == "best-effort"

    def _best(self, lists: Sequence[Sequence[Hint]]) -> Hint | None:
        everywhere = frozenset(each.id for each in self.nodes)
        wanted = max((len(found) for hints in lists if (found := _narrowest(hints)) is not None), default=0)
        choose = self._closer if self.options.prefer_closest and self.policy != "single-numa-node" else _narrowest_of
        best: Hint | None = None
        for combination in itertools.product(*lists):
            merged = _merged(everywhere, combination)
            if merged.nodes:
                best = merged if best is None else _better(best, merged, wanted, choose)
        return best

    def _closer(self, left: Mask, right: Mask) -> Mask:
        if len(left) != len(right):
            return _narrowest_of(left, right)
        near, far = self._distance(left), self._distance(right)
        if near == far:
            return left if _bits(left) < _bits(right) else right
        return left if near < far else right

    def _distance(self, mask: Mask) -> float:
        """The mean distance between the nodes of a set."""
        distances = {each.id: each.distances for each in self.nodes}
        found = [distances[one][other] for one in mask for other in mask if other < len(distances[one])]
        return sum(found) / len(found) if found else 0.0


def _lists(hints: Hints) -> list[Sequence[Hint]]:
    if not hints:
        return [[Hint()]]
    return [[Hint()] if each is None else each or [Hint(None, preferred=False)] for each in hints.values()]


def _is_single(hint: Hint) -> bool:
    return hint.preferred and (hint.nodes is None or len(hint.nodes) == 1)


def _narrowest(hints: Sequence[Hint]) -> Mask | None:
    found: Mask | None = None
    for each in hints:
        if each.nodes is not None and (found is None or narrower(each.nodes, found)):
            found = each.nodes
    return found


def _narrowest_of(left: Mask, right: Mask) -> Mask:
    return left if narrower(left, right) else right


def _merged(everywhere: Mask, combination: Sequence[Hint]) -> Hint:
    nodes = [each.nodes for each in combination if each.nodes is not None]
    preferred = all(each.preferred for each in combination) and all(each == nodes[0] for each in nodes)
    return Hint(everywhere.intersection(*nodes), preferred)


def _better(best: Hint, other: Hint, wanted: int, choose: Callable[[Mask, Mask], Mask]) -> Hint:
    """Of two hints the preferred one, then the narrower. Of two that nobody prefers: the one with as many nodes as the
    most demanding resource needs at least, or the next larger."""
    left, right = best.nodes or frozenset(), other.nodes or frozenset()

    def chosen() -> Hint:
        return best if left == right or choose(left, right) == left else other

    if best.preferred != other.preferred:
        return best if best.preferred else other
    if best.preferred or len(left) > wanted:
        return chosen()
    if len(left) == wanted:
        return chosen() if len(right) == wanted else best
    if len(right) > wanted:
        return best
    if len(right) == wanted or len(right) > len(left):
        return other
    if len(right) < len(left):
        return best
    return chosen()
