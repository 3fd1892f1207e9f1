"""What was found, as `status.allocation` of a claim says it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from shipwheel.api.meta import Obj, name_of
from shipwheel.scheduler.devices.wishes import AllocationError, Wish, requests_of

if TYPE_CHECKING:
    from shipwheel.scheduler.devices.allocator import Taken


def allocation(claim: Obj, taken: Sequence[Taken], node: str) -> Obj:
    """The devices, what drivers are told about them, and the nodes where they can be used."""
    devices: Obj = {"results": [_result(each) for each in taken]}
    config = [*_class_config(claim, taken), *_claim_config(claim, taken)]
    if config:
        devices["config"] = config
    found: Obj = {"devices": devices}
    selector = _node_selector(taken, node)
    if selector:
        found["nodeSelector"] = {"nodeSelectorTerms": [selector]}
    return found


def _result(taken: Taken) -> Obj:
    driver, pool, name = taken.device.id
    device, wish = taken.device.obj, taken.wish
    result: Obj = {"request": wish.reference, "driver": driver, "pool": pool, "device": name}
    if wish.admin_access:
        result["adminAccess"] = True
    if wish.tolerations:
        result["tolerations"] = list(wish.tolerations)
    for field in ("bindingConditions", "bindingFailureConditions"):
        if device.get(field):
            result[field] = device[field]
    if taken.share:
        result["shareID"] = taken.share
    if taken.consumed:
        result["consumedCapacity"] = {key: str(amount) for key, amount in taken.consumed.items()}
    return result


def _chosen(claim: Obj, taken: Sequence[Taken]) -> Iterable[Wish]:
    """What each request came to, in the order of the requests."""
    by_request = {each.wish.references[0]: each.wish for each in taken}
    return (by_request[each["name"]] for each in requests_of(claim) if each["name"] in by_request)


def _class_config(claim: Obj, taken: Sequence[Taken]) -> Iterable[Obj]:
    """The configuration of each class once, with all the requests that have it."""
    requests: dict[str, list[str]] = {}
    classes: dict[str, Obj] = {}
    for wish in _chosen(claim, taken):
        name = name_of(wish.device_class)
        classes[name] = wish.device_class
        requests.setdefault(name, []).append(wish.reference)
    for name, device_class in classes.items():
        for each in (device_class.get("spec") or {}).get("config") or ():
            yield {"source": "FromClass", "requests": requests[name], **each}


def _claim_config(claim: Obj, taken: Sequence[Taken]) -> Iterable[Obj]:
    """The claim's own configuration, but for alternatives that were not chosen."""
    chosen = [*_chosen(claim, taken)]
    for each in claim["spec"]["devices"].get("config") or ():
        requests = each.get("requests") or ()
        for wish in chosen if requests else chosen[:1]:
            if not requests or not set(requests).isdisjoint(wish.references):
                yield {"source": "FromClaim", **each}


def _node_selector(taken: Sequence[Taken], node: str) -> Obj:
    """A term that selects the nodes where all of the devices can be used; none when that is everywhere."""
    fields: list[Obj] = []
    expressions: list[Obj] = []
    for each in taken:
        where = each.device.where
        if where.get("nodeName") or each.device.obj.get("bindsToNode"):
            return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        terms = (where.get("nodeSelector") or {}).get("nodeSelectorTerms") or ()
        if len(terms) > 1:
            raise AllocationError(f"unsupported ResourceSlice.NodeSelector with {len(terms)} terms")
        for term in terms:
            _add_new(fields, term.get("matchFields") or ())
            _add_new(expressions, term.get("matchExpressions") or ())
    found: Obj = {}
    if fields:
        found["matchFields"] = fields
    if expressions:
        found["matchExpressions"] = expressions
    return found


def _add_new(known: list[Obj], more: Iterable[Obj]) -> None:
    def what(requirement: Obj) -> tuple[str, str, frozenset[str]]:
        return requirement["key"], requirement["operator"], frozenset(requirement.get("values") or ())

    seen = {what(each) for each in known}
    known += [each for each in more if what(each) not in seen]
