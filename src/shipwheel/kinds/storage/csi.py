"""What CSI drivers say of themselves: the driver, its presence on a node, the room it has left."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.errors import FieldError, duplicate, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import byte_length, is_qualified_name, name_is_dns_subdomain
from shipwheel.api.objectmeta import validate_label_selector
from shipwheel.api.quantity import parse
from shipwheel.api.resource import Column, Resource, Strategy, WriteContext
from shipwheel.kinds.checks import NEGATIVE, Errors, check_fixed, check_immutable, check_nonnegative, check_rule
from shipwheel.kinds.columns import AGE, NAME, NONE, UNSET, Value, dig
from shipwheel.kinds.core.nodelabels import label_selector_warnings
from shipwheel.kinds.core.volumesources import check_csi_driver_name
from shipwheel.kinds.declare import older, served

_GROUP = "storage.k8s.io"
_FS_GROUP_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
_MODES = ("Persistent", "Ephemeral")
_TOKEN_RANGE = (600, 1 << 32)
_SHORTEST_PERIOD = 10
_MAX_NODE_ID = 256
_TOKENS_NOT_SECRET = (
    "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible "
    "logging of tokens in volume attributes"
)


class CSIDriverStrategy(Strategy):
    returns_deleted = True
    allow_unconditional_update = False
    tracks_generation = False

    def default(self, driver: Obj) -> None:
        spec = driver.setdefault("spec", {})
        for field, value in (
            ("attachRequired", True),
            ("podInfoOnMount", False),
            ("storageCapacity", False),
            ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
            ("requiresRepublish", False),
            ("seLinuxMount", False),
        ):
            if spec.get(field) is None:
                spec[field] = value
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]

    def prepare_for_create(self, driver: Obj, ctx: WriteContext) -> None:
        driver["spec"].pop("preventPodSchedulingIfMissing", None)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        new["spec"].pop("preventPodSchedulingIfMissing", None)
        if new["spec"] != old["spec"]:  # counted from the first change on, as drivers have no generation before
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1

    def validate(self, driver: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = driver["spec"]
        policy, period = spec.get("fsGroupPolicy"), spec.get("nodeAllocatableUpdatePeriodSeconds")
        if policy is not None and policy not in _FS_GROUP_POLICIES:
            errors.append(not_supported("spec.fsGroupPolicy", policy, _FS_GROUP_POLICIES))
        requests = spec.get("tokenRequests") or []
        _check_token_requests(requests, "spec.tokenRequests", errors)
        for mode in spec.get("volumeLifecycleModes") or ():
            if mode not in _MODES:
                errors.append(not_supported("spec.volumeLifecycleModes", mode, _MODES))
        if period is not None and period < _SHORTEST_PERIOD:
            detail = f"must be greater than or equal to {_SHORTEST_PERIOD} seconds"
            errors.append(invalid("spec.nodeAllocatableUpdatePeriodSeconds", period, detail))
        secret = spec.get("serviceAccountTokenInSecrets")
        if secret is not None and not requests:
            detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified"
            errors.append(invalid("spec.serviceAccountTokenInSecrets", secret, detail))
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        field = "attachRequired"
        check_immutable(new["spec"].get(field), old["spec"].get(field), "spec.attachedRequired", errors)
        check_fixed(new, old, "spec.volumeLifecycleModes", errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        spec = new["spec"]
        same = old is not None and old["spec"].get("tokenRequests") == spec.get("tokenRequests")
        if same or not spec.get("tokenRequests") or spec.get("serviceAccountTokenInSecrets") is not None:
            return []
        return [_TOKENS_NOT_SECRET]


def _check_token_requests(requests: list[Obj], path: str, errors: Errors) -> None:
    seen: set[str] = set()
    for index, request in enumerate(requests):
        audience, seconds = request.get("audience", ""), request.get("expirationSeconds")
        if audience in seen:
            errors.append(duplicate(f"{path}[{index}].audience", audience))
            continue
        seen.add(audience)
        shortest, longest = _TOKEN_RANGE
        if seconds is not None and not shortest <= seconds <= longest:
            limit = "less than 10 minutes" if seconds < shortest else "larger than 2^32 seconds"
            detail = f"may not specify a duration {limit}"
            errors.append(invalid(f"{path}[{index}].expirationSeconds", seconds, detail))


class CSINodeStrategy(Strategy):
    returns_deleted = True
    allow_unconditional_update = False
    tracks_generation = False

    def validate(self, node: Obj) -> list[FieldError]:
        errors: Errors = []
        seen: set[str] = set()
        for index, driver in enumerate(_drivers(node)):
            path, name = f"spec.drivers[{index}]", driver.get("name", "")
            _check_driver(driver, path, errors)
            if name in seen:
                errors.append(duplicate(f"{path}.name", name))
            seen.add(name)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        """A driver stays what it is; how many volumes it can have may change (KEP-4876)."""
        errors = self.validate(new)
        for driver in _drivers(new):
            for before in _drivers(old):
                if driver.get("name") == before.get("name"):
                    check_immutable(_without_count(driver), _without_count(before), "spec.drivers", errors)
        return errors


def _drivers(node: Obj) -> list[Obj]:
    return (node.get("spec") or {}).get("drivers") or []


def _without_count(driver: Obj) -> Obj:
    return {field: value for field, value in driver.items() if field != "allocatable"}


def _check_driver(driver: Obj, path: str, errors: Errors) -> None:
    check_csi_driver_name(driver.get("name", ""), f"{path}.name", errors)
    node = driver.get("nodeID", "")
    if not node:
        errors.append(required(f"{path}.nodeID"))
    if byte_length(node) > _MAX_NODE_ID:
        errors.append(invalid(f"{path}.nodeID", node, f"must be {_MAX_NODE_ID} characters or less"))
    check_nonnegative((driver.get("allocatable") or {}).get("count"), f"{path}.allocatable.count", errors)
    keys = driver.get("topologyKeys") or []
    for index, key in enumerate(keys):
        if not key:
            errors.append(required(path))
        if key in keys[:index]:
            errors.append(duplicate(path, key))
        check_rule(is_qualified_name, key, path, errors)


class CSIStorageCapacityStrategy(Strategy):
    allow_unconditional_update = False
    tracks_generation = False

    def validate(self, capacity: Obj) -> list[FieldError]:
        errors: Errors = validate_label_selector(capacity.get("nodeTopology"), "nodeTopology")
        check_rule(name_is_dns_subdomain, capacity.get("storageClassName", ""), "storageClassName", errors)
        amount = capacity.get("capacity")
        if amount is not None and parse(amount).nanos < 0:
            errors.append(invalid("capacity", amount, NEGATIVE))
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        for field in ("nodeTopology", "storageClassName"):
            check_fixed(new, old, field, errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        return label_selector_warnings(new.get("nodeTopology"), "nodeTopology")


def _flag(field: str, *, default: bool) -> Value:
    def value(driver: Obj, now: datetime) -> bool:
        flag = (driver.get("spec") or {}).get(field)
        return default if flag is None else flag

    return value


def _token_requests(driver: Obj, now: datetime) -> str:
    requests = (driver.get("spec") or {}).get("tokenRequests")
    return UNSET if requests is None else ",".join(each.get("audience", "") for each in requests)


def _modes(driver: Obj, now: datetime) -> str:
    return ",".join((driver.get("spec") or {}).get("volumeLifecycleModes") or ()) or NONE


RESOURCES = (
    Resource(
        kind="CSIDriver",
        plural="csidrivers",
        singular="csidriver",
        namespaced=False,
        versions=(
            served(_GROUP, "v1", "CSIDriver"),
            older(_GROUP, "v1beta1", "CSIDriver", since="1.19", until="1.22", replacement="storage.k8s.io/v1"),
        ),
        strategy=CSIDriverStrategy(),
        columns=(
            NAME,
            Column("AttachRequired", _flag("attachRequired", default=True), type="boolean"),
            Column("PodInfoOnMount", _flag("podInfoOnMount", default=False), type="boolean"),
            Column("StorageCapacity", _flag("storageCapacity", default=False), type="boolean"),
            Column("TokenRequests", _token_requests),
            Column("RequiresRepublish", _flag("requiresRepublish", default=False), type="boolean"),
            Column("Modes", _modes),
            AGE,
        ),
    ),
    Resource(
        kind="CSINode",
        plural="csinodes",
        singular="csinode",
        namespaced=False,
        versions=(
            served(_GROUP, "v1", "CSINode"),
            older(_GROUP, "v1beta1", "CSINode", since="1.17", until="1.22", replacement="storage.k8s.io/v1"),
        ),
        strategy=CSINodeStrategy(),
        columns=(
            NAME,
            Column("Drivers", lambda obj, now: len(dig(obj, "spec", "drivers") or ()), type="integer"),
            AGE,
        ),
    ),
    Resource(
        kind="CSIStorageCapacity",
        plural="csistoragecapacities",
        singular="csistoragecapacity",
        versions=(
            served(_GROUP, "v1", "CSIStorageCapacity"),
            older(_GROUP, "v1beta1", "CSIStorageCapacity", since="1.24", until="1.27", replacement="storage.k8s.io/v1"),
        ),
        strategy=CSIStorageCapacityStrategy(),
    ),
)
