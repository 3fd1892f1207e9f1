"""The cluster as arrays: a row a node, a column for everything a rule compares.

Placement is arithmetic over this table. It is changed in place by what the watches say and by decisions, which count
from the moment they are taken. Numbers are float64: whole numbers up to 2^53 are exact in it, and dividing them is
many times faster than in int64. Columns come into being when a rule first asks for them (a label's values, how many
pods a selector selects on each node) and are kept up to date from then on.

Rows of nodes that have gone are used again; `alive` says which rows are nodes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shipwheel.api.meta import Obj
from shipwheel.scheduler.pods import Labels, Pods, Port, Shape, Term, amounts, normalized_image

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int32]
Taint = tuple[str, str, str]
"""(key, value, effect)"""

_START = 64
_COUNTERS = 512
_TOUCHED = 4096
HOSTNAME = "kubernetes.io/hostname"


@dataclass(eq=False, slots=True)
class PodEntry:
    """A pod that counts on a node: bound there, about to be, or nominated to be."""

    key: str
    obj: Obj
    shape: Shape
    node: str
    nominated: bool = False
    """It only has the node promised, until others there have gone."""
    group: Group | None = None

    @property
    def priority(self) -> int:
        return self.shape.priority


@dataclass(eq=False, slots=True)
class Group:
    """Pods that no selector can tell apart, and how many of them each row has."""

    namespace: str
    labels: Labels
    living: bool
    rows: dict[int, int]
    counters: list[Counter] | None = None
    """Those that count these pods; None: not known yet."""


@dataclass(eq=False, slots=True)
class Counter:
    """How many pods a `Pods` means on each row."""

    pods: Pods
    values: Counts


@dataclass(eq=False, slots=True)
class Carried:
    """A term of affinity that pods of the cluster have, and how many on each row have it."""

    kind: str
    """`required`, `anti` (required anti-affinity), `preferred`, `avoided`."""
    term: Term
    weight: int
    values: Counts
    total: int = 0


class LabelColumn:
    """A label's values as small numbers, -1 where a node lacks it."""

    def __init__(self, key: str, capacity: int) -> None:
        self.key = key
        self.codes: Codes = np.full(capacity, -1, np.int32)
        self.values: list[str | None] = []
        self._code: dict[str, int] = {}
        self._uses: list[int] = []
        self._free: list[int] = []
        self._shared = 0

    @property
    def distinct(self) -> bool:
        """No two nodes have the same value: every domain is one node."""
        return self._shared == 0

    @property
    def size(self) -> int:
        """Above every code."""
        return len(self.values)

    def set(self, row: int, value: str | None) -> None:
        old = int(self.codes[row])
        if old >= 0:
            if self.values[old] == value:
                return
            self._uses[old] -= 1
            if self._uses[old] == 1:
                self._shared -= 1
            elif self._uses[old] == 0:
                del self._code[self.values[old] or ""]
                self.values[old] = None
                self._free.append(old)
        if value is None:
            self.codes[row] = -1
            return
        code = self._code.get(value)
        if code is None:
            code = self._new(value)
        self._uses[code] += 1
        if self._uses[code] == 2:
            self._shared += 1
        self.codes[row] = code

    def _new(self, value: str) -> int:
        if self._free:
            code = self._free.pop()
            self.values[code] = value
        else:
            code = len(self.values)
            self.values.append(value)
            self._uses.append(0)
        self._code[value] = code
        return code

    def where(self, test: Callable[[str | None], bool]) -> Mask:
        """The rows whose value passes a test (None: the label is not there)."""
        verdicts = np.fromiter((test(value) for value in (*self.values, None)), np.bool_, len(self.values) + 1)
        return verdicts[self.codes]


class NodeTable:
    """See the module. `namespace_labels` tells a namespace's labels."""

    def __init__(self, namespace_labels: Callable[[str], Labels] = lambda name: {}) -> None:
        self._namespace_labels = namespace_labels
        self._capacity = _START
        self.size = 0
        """Rows in use, those of nodes that have gone included."""
        self.count = 0
        self.rows: dict[str, int] = {}
        self.nodes: list[Obj | None] = []
        self._free: list[int] = []
        self.alive: Mask = np.zeros(_START, np.bool_)
        self.unschedulable: Mask = np.zeros(_START, np.bool_)
        self.pods_allowed: Floats = np.zeros(_START)
        self.pod_count: Floats = np.zeros(_START)
        self.allocatable: dict[str, Floats] = {}
        self.requested: dict[str, Floats] = {}
        self.nonzero: dict[str, Floats] = {"cpu": np.zeros(_START), "memory": np.zeros(_START)}
        self.taints: dict[Taint, Mask] = {}
        self.images: dict[str, Floats] = {}
        """Sizes in bytes of the images asked for so far; -1 where a node lacks it."""
        self.image_nodes: dict[str, int] = {}
        self._labels: dict[str, LabelColumn] = {}
        self.ports: dict[tuple[str, int], dict[int, list[str]]] = {}
        """(protocol, port) -> row -> addresses taken."""
        self.pods: list[dict[str, PodEntry]] = []
        self.entries: dict[str, PodEntry] = {}
        self._orphans: dict[str, dict[str, PodEntry]] = {}
        self._groups: dict[tuple[object, ...], Group] = {}
        self._counters: OrderedDict[Pods, Counter] = OrderedDict()
        self.carried: dict[tuple[str, Term, int], Carried] = {}
        self._matching: dict[tuple[str, frozenset[tuple[str, str]]], list[Carried]] = {}
        self.node_version = 0
        """Changes when something changes that nodes say of themselves, allocatable resources and images aside."""
        self.image_version = 0
        self.touched: list[int] = []
        """Rows whose room has changed, in order; begun anew with each `touched_epoch`."""
        self.touched_epoch = 0
        self._promised: dict[int, int] = {}
        """How many pods have a row promised, of rows where some have."""
        self.stamps: list[int] = []
        """By row, another number after each change of what runs there."""

    # Nodes

    def set_node(self, obj: Obj) -> None:
        """Add a node, or take in its changes."""
        name = obj["metadata"]["name"]
        row = self.rows.get(name)
        old = self.nodes[row] if row is not None else None
        if row is None:
            row = self._take_row(name)
        self.nodes[row] = obj
        spec = obj.get("spec") or {}
        if old is None or _static(old) != _static(obj):
            self.node_version += 1
            self.unschedulable[row] = bool(spec.get("unschedulable"))
            self._set_taints(row, spec.get("taints") or ())
            labels = obj["metadata"].get("labels") or {}
            for key, column in self._labels.items():
                column.set(row, labels.get(key))
        status = obj.get("status") or {}
        if old is None or (old.get("status") or {}).get("allocatable") != status.get("allocatable"):
            self._set_allocatable(row, amounts(status.get("allocatable")))
        if old is None or (old.get("status") or {}).get("images") != status.get("images"):
            self._set_images(row)
        if old is None:
            for entry in self._orphans.pop(name, {}).values():
                self._count(entry, row, 1)

    def remove_node(self, name: str) -> None:
        """Forget a node; its pods wait in case it comes back."""
        row = self.rows.get(name)
        if row is None:
            return
        waiting = dict(self.pods[row])
        for entry in waiting.values():
            self._count(entry, row, -1)
        if waiting:
            self._orphans[name] = waiting
        self._set_allocatable(row, {})
        self._set_taints(row, ())
        for column in self._labels.values():
            column.set(row, None)
        self.nodes[row] = None
        self._set_images(row)
        del self.rows[name]
        self.alive[row] = self.unschedulable[row] = False
        self._free.append(row)
        self.count -= 1
        self.node_version += 1

    def name(self, row: int) -> str:
        node = self.nodes[row]
        assert node is not None
        return node["metadata"]["name"]

    def _take_row(self, name: str) -> int:
        if self._free:
            row = self._free.pop()
        else:
            row = self.size
            if row == self._capacity:
                self._grow()
            self.size += 1
            self.nodes.append(None)
            self.pods.append({})
            self.stamps.append(0)
        self.rows[name] = row
        self.alive[row] = True
        self.count += 1
        self.node_version += 1
        return row

    def _grow(self) -> None:
        more = self._capacity
        self._capacity *= 2
        for name in ("alive", "unschedulable", "pods_allowed", "pod_count"):
            setattr(self, name, _longer(getattr(self, name), more))
        columns: tuple[dict[Any, Any], ...] = (self.allocatable, self.requested, self.nonzero, self.taints)
        for arrays in columns:
            for key, array in arrays.items():
                arrays[key] = _longer(array, more)
        for image, sizes in self.images.items():
            self.images[image] = _longer(sizes, more, -1)
        for column in self._labels.values():
            column.codes = _longer(column.codes, more, -1)
        for counter in self._counters.values():
            counter.values = _longer(counter.values, more)
        for carried in self.carried.values():
            carried.values = _longer(carried.values, more)

    def _set_taints(self, row: int, taints: Iterable[Obj]) -> None:
        wanted = {(each["key"], each.get("value") or "", each["effect"]) for each in taints}
        for taint in wanted - self.taints.keys():
            self.taints[taint] = np.zeros(self._capacity, np.bool_)
        for taint, column in [*self.taints.items()]:
            if column[row] and taint not in wanted:
                column[row] = False
                if not column.any():
                    del self.taints[taint]
            elif taint in wanted:
                column[row] = True

    def _touch(self, row: int) -> None:
        if len(self.touched) >= _TOUCHED:
            self.touched = []
            self.touched_epoch += 1
        self.touched.append(row)
        self.stamps[row] += 1

    def _set_allocatable(self, row: int, allocatable: Mapping[str, int]) -> None:
        self._touch(row)
        self.pods_allowed[row] = allocatable.get("pods", 0)
        for resource in allocatable.keys() - self.allocatable.keys():
            self._resource(resource)
        for resource, column in self.allocatable.items():
            column[row] = allocatable.get(resource, 0)

    def _resource(self, resource: str) -> None:
        self.allocatable[resource] = np.zeros(self._capacity)
        self.requested[resource] = np.zeros(self._capacity)

    def _set_images(self, row: int) -> None:
        self.image_version += 1
        sizes = _images(self.nodes[row])
        for name, column in self.images.items():
            self.image_nodes[name] += int(name in sizes) - int(column[row] >= 0)
            column[row] = sizes.get(name, -1)

    # What rules ask for

    def label(self, key: str) -> LabelColumn:
        """The column of a label."""
        column = self._labels.get(key)
        if column is None:
            column = self._labels[key] = LabelColumn(key, self._capacity)
            for row, node in enumerate(self.nodes):
                if node is not None:
                    column.set(row, (node["metadata"].get("labels") or {}).get(key))
        return column

    def image(self, name: str) -> tuple[Floats, int]:
        """The size of an image on each row (-1: it is not there), and how many nodes have it."""
        column = self.images.get(name)
        if column is None:
            column = np.full(self._capacity, -1.0)
            for row, node in enumerate(self.nodes):
                size = _images(node).get(name)
                if size is not None:
                    column[row] = size
            self.images[name] = column
            self.image_nodes[name] = int((column[: self.size] >= 0).sum())
        return column, self.image_nodes[name]

    def counts(self, pods: Pods) -> Counts:
        """How many of these pods each row has."""
        counter = self._counters.get(pods)
        if counter is None:
            counter = self._new_counter(pods)
        self._counters.move_to_end(pods)
        return counter.values

    def _new_counter(self, pods: Pods) -> Counter:
        counter = self._counters[pods] = Counter(pods, np.zeros(self._capacity, np.int32))
        for group in self._groups.values():
            if self._counts(counter, group):
                if group.counters is not None:
                    group.counters.append(counter)
                for row, number in group.rows.items():
                    counter.values[row] += number
        if len(self._counters) > _COUNTERS:
            _, gone = self._counters.popitem(last=False)
            for group in self._groups.values():
                if group.counters and gone in group.counters:
                    group.counters.remove(gone)
        return counter

    def _counts(self, counter: Counter, group: Group) -> bool:
        pods = counter.pods
        if pods.living and not group.living:
            return False
        return pods.match(group.namespace, group.labels, self._namespace_labels(group.namespace))

    def carried_for(self, shape: Shape) -> list[Carried]:
        """The terms of the cluster's pods that mean pods of this shape."""
        if not self.carried:
            return []
        key = (shape.namespace, frozenset(shape.labels.items()))
        found = self._matching.get(key)
        if found is None:
            labels = self._namespace_labels(shape.namespace)
            found = self._matching[key] = [
                each for each in self.carried.values() if each.term.pods.match(shape.namespace, shape.labels, labels)
            ]
        return found

    def namespaces_changed(self) -> None:
        """A namespace has other labels: whatever was selected by them is counted anew."""
        self._counters.clear()
        self._matching.clear()
        for group in self._groups.values():
            group.counters = None

    # Pods

    def add(self, entry: PodEntry) -> None:
        """Count a pod, in place of what was known of it."""
        self.remove(entry.key)
        self.entries[entry.key] = entry
        row = self.rows.get(entry.node)
        if row is None:
            self._orphans.setdefault(entry.node, {})[entry.key] = entry
        else:
            self._count(entry, row, 1)

    def renew(self, entry: PodEntry, obj: Obj) -> None:
        """A pod that counts already has changed in ways that do not count."""
        entry.obj = obj
        row = self.rows.get(entry.node)
        if row is not None:
            self.stamps[row] += 1

    def remove(self, key: str) -> PodEntry | None:
        """Count a pod no more."""
        entry = self.entries.pop(key, None)
        if entry is None:
            return None
        row = self.rows.get(entry.node)
        if row is not None:
            self._count(entry, row, -1)
        else:
            waiting = self._orphans.get(entry.node, {})
            waiting.pop(key, None)
            if not waiting:
                self._orphans.pop(entry.node, None)
        return entry

    def _count(self, entry: PodEntry, row: int, sign: int) -> None:
        shape = entry.shape
        self._touch(row)
        if sign > 0:
            self.pods[row][entry.key] = entry
        else:
            del self.pods[row][entry.key]
        if entry.nominated:
            self._promised[row] = self._promised.get(row, 0) + sign
            if not self._promised[row]:
                del self._promised[row]
        self.pod_count[row] += sign
        for resource, amount in shape.requests.items():
            if resource not in self.requested:
                self._resource(resource)
            self.requested[resource][row] += sign * amount
        for resource, column in self.nonzero.items():
            column[row] += sign * shape.nonzero_requests.get(resource, 0)
        for protocol, address, port in shape.ports:
            self._count_port((protocol, port), row, address, sign)
        self._count_group(entry, row, sign)
        if shape.has_affinity:
            self._count_terms(shape, row, sign)

    def _count_port(self, port: tuple[str, int], row: int, address: str, sign: int) -> None:
        taken = self.ports.setdefault(port, {})
        if sign > 0:
            taken.setdefault(row, []).append(address)
            return
        taken[row].remove(address)
        if not taken[row]:
            del taken[row]
        if not taken:
            del self.ports[port]

    def _count_group(self, entry: PodEntry, row: int, sign: int) -> None:
        group = entry.group
        if group is None or sign > 0:
            living = "deletionTimestamp" not in entry.obj["metadata"]
            key = (entry.shape.namespace, frozenset(entry.shape.labels.items()), living)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = Group(entry.shape.namespace, entry.shape.labels, living, {})
            entry.group = group
        if group.counters is None:
            group.counters = [each for each in self._counters.values() if self._counts(each, group)]
        for counter in group.counters:
            counter.values[row] += sign
        number = group.rows.get(row, 0) + sign
        if number:
            group.rows[row] = number
            return
        del group.rows[row]
        if not group.rows:
            del self._groups[(group.namespace, frozenset(group.labels.items()), group.living)]

    def _count_terms(self, shape: Shape, row: int, sign: int) -> None:
        kinds: tuple[tuple[str, Iterable[tuple[Term, int]]], ...] = (
            ("required", ((term, 1) for term in shape.required_affinity)),
            ("anti", ((term, 1) for term in shape.required_anti_affinity)),
            ("preferred", shape.preferred_affinity),
            ("avoided", shape.preferred_anti_affinity),
        )
        for kind, terms in kinds:
            for term, weight in terms:
                key = (kind, term, weight)
                carried = self.carried.get(key)
                if carried is None:
                    carried = Carried(kind, term, weight, np.zeros(self._capacity, np.int32))
                    self.carried[key] = carried
                    self._matching.clear()
                carried.values[row] += sign
                carried.total += sign
                if not carried.total:
                    del self.carried[key]
                    self._matching.clear()

    def room_for(self, key: str, shape: Shape, row: int, ignored: Callable[[str], bool]) -> bool:
        """Whether there is room on a row for a pod. What is promised to pods of lower priority, or to the pod itself,
        is not taken."""
        yielding = []
        if row in self._promised:
            yielding = [
                each.shape
                for each in self.pods[row].values()
                if each.nominated and (each.key == key or each.priority < shape.priority)
            ]
        if self.pod_count[row] - len(yielding) + 1 > self.pods_allowed[row]:
            return False
        for resource, amount in shape.requests.items():
            if ignored(resource):
                continue
            there = self.allocatable.get(resource)
            used = self.requested[resource][row] - sum(each.requests.get(resource, 0) for each in yielding)
            if there is None or there[row] - used < amount:
                return False
        return True

    def free_ports(self, ports: Iterable[Port]) -> Mask:
        """The rows where all of these ports are free."""
        free = np.ones(self.size, np.bool_)
        for protocol, address, port in ports:
            for row, taken in self.ports.get((protocol, port), {}).items():
                if address == "0.0.0.0" or any(each in ("0.0.0.0", address) for each in taken):
                    free[row] = False
        return free


def _static(node: Obj) -> tuple[Any, ...]:
    """What of a node rules about the node itself depend on."""
    spec = node.get("spec") or {}
    return node["metadata"].get("labels"), spec.get("taints"), bool(spec.get("unschedulable"))


def _images(node: Obj | None) -> dict[str, int]:
    status = (node or {}).get("status") or {}
    return {
        normalized_image(name): each.get("sizeBytes") or 0
        for each in status.get("images") or ()
        for name in each.get("names") or ()
    }


def _longer(array: npt.NDArray[Any], more: int, fill: int = 0) -> npt.NDArray[Any]:
    return np.concatenate((array, np.full(more, fill, array.dtype)))
