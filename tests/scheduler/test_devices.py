"""The search for devices: what is found, against trying everything, and what is written of it."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from shipwheel.scheduler.devices.allocator import InUse, NotHere, TimedOut, allocate
from shipwheel.scheduler.devices.capacity import consumption
from shipwheel.scheduler.devices.extended import extended_claim
from shipwheel.scheduler.devices.pools import Reach, Slices
from shipwheel.scheduler.devices.wishes import AllocationError

Obj = dict[str, Any]
NOTHING = InUse()
HERE = Reach("one", lambda selector: selector["nodeSelectorTerms"][0]["zone"] == "here")
CLASSES = {
    "gpu": {"metadata": {"name": "gpu"}, "spec": {}},
    "big": {
        "metadata": {"name": "big"},
        "spec": {
            "selectors": [
                {"cel": {"expression": 'device.capacity["gpu.example.com"].memory.isGreaterThan(quantity("1"))'}}
            ],
            "config": [{"opaque": {"driver": "gpu.example.com", "parameters": {"mode": "big"}}}],
        },
    },
}


def device(name: str, **more: Any) -> Obj:
    return {"name": name, **more}


def pool(*devices: Obj, name: str = "pool", count: int = 1, generation: int = 1, **where: Any) -> Obj:
    place = where or {"nodeName": "one"}
    return {
        "metadata": {"name": f"{name}-{generation}-{devices[0]['name'] if devices else 'counters'}"},
        "spec": {
            "driver": "gpu.example.com",
            "pool": {"name": name, "generation": generation, "resourceSliceCount": count},
            "devices": [*devices],
            **place,
        },
    }


def request(name: str = "r", count: int = 1, **more: Any) -> Obj:
    return {"name": name, "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": count, **more}}


def choice(name: str, *alternatives: Obj) -> Obj:
    return {"name": name, "firstAvailable": [{"name": each["name"], **each["exactly"]} for each in alternatives]}


def claim(*requests: Obj, name: str = "claim", **devices: Any) -> Obj:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"devices": {"requests": [*requests], **devices}},
    }


def selecting(expression: str) -> list[Obj]:
    return [{"cel": {"expression": expression}}]


def given(slices: list[Obj], *claims: Obj, in_use: InUse = NOTHING, **more: Any) -> list[Obj] | None:
    return allocate(claims, CLASSES, Slices(slices).pools(HERE), in_use, HERE, new_share=lambda: "share", **more)


def devices(found: list[Obj] | None) -> list[list[str]] | None:
    if found is None:
        return None
    return [[each["device"] for each in one["devices"]["results"]] for one in found]


A, B, C = (device(name) for name in "abc")


@pytest.mark.parametrize(
    ("slices", "claims", "expected"),
    [
        ([pool(A, B)], [claim(request())], [["a"]]),
        ([pool(A, B)], [claim(request(count=2))], [["a", "b"]]),
        ([pool(A, B)], [claim(request(count=3))], None),
        ([pool(A, B)], [claim(request()), claim(request())], [["a"], ["b"]]),
        ([pool(A), pool(B, name="other")], [claim(request(count=2))], [["b", "a"]]),
        ([pool(A, nodeName="two")], [claim(request())], None),
        ([pool(A, allNodes=True)], [claim(request())], [["a"]]),
        ([pool(A, nodeSelector={"nodeSelectorTerms": [{"zone": "here"}]})], [claim(request())], [["a"]]),
        ([pool(A, nodeSelector={"nodeSelectorTerms": [{"zone": "there"}]})], [claim(request())], None),
        (
            [pool({**A, "nodeName": "two"}, {**B, "nodeName": "one"}, perDeviceNodeSelection=True)],
            [claim(request())],
            [["b"]],
        ),
        # A pool is used when all of it is there, in its newest generation.
        ([pool(A, count=2)], [claim(request())], None),
        ([pool(A, count=2), pool(B, count=2)], [claim(request(count=2))], [["a", "b"]]),
        ([pool(A), pool(B, generation=2)], [claim(request())], [["b"]]),
        ([pool(A), pool(B, generation=2, nodeName="two")], [claim(request())], [["a"]]),
        # All of them
        ([pool(A, B)], [claim(request(allocationMode="All"))], [["a", "b"]]),
        ([pool()], [claim(request(allocationMode="All"))], None),
        # What comes first among alternatives
        ([pool(A)], [claim(choice("r", request("two", 2), request("one")))], [["a"]]),
        ([pool(A, B)], [claim(choice("r", request("two", 2), request("one")))], [["a", "b"]]),
        ([pool(A, B)], [claim(choice("r", request("two", 2), request("one")), request("s"))], [["a", "b"]]),
    ],
)
def test_what_is_found(slices: list[Obj], claims: list[Obj], expected: list[list[str]] | None) -> None:
    assert devices(given(slices, *claims)) == expected


def test_selectors_of_class_and_request() -> None:
    def gpu(name: str, memory: str, model: str) -> Obj:
        return device(name, attributes={"model": {"string": model}}, capacity={"memory": {"value": memory}})

    slices = [pool(gpu("a", "1Gi", "old"), gpu("b", "80Gi", "old"), gpu("c", "80Gi", "new"))]
    model = selecting('device.attributes["gpu.example.com"].model == "new"')
    assert devices(given(slices, claim(request(selectors=model)))) == [["c"]]
    enough = selecting('device.capacity["gpu.example.com"].memory.compareTo(quantity("2Gi")) >= 0')
    assert devices(given(slices, claim(request(selectors=enough)))) == [["b"]]


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("device.", "claim default/claim: selector #0: CEL compile error: compilation failed: "),
        (
            "1",
            "claim default/claim: selector #0: CEL compile error: must evaluate to bool or the unknown type, not int",
        ),
        ('device.attributes["x"].y', "claim default/claim: selector #0: CEL runtime error: no such key: y"),
    ],
)
def test_bad_selectors_fail_the_attempt(expression: str, complaint: str) -> None:
    with pytest.raises(AllocationError) as raised:
        given([pool(A)], claim(request(selectors=selecting(expression))))
    assert str(raised.value).startswith(complaint)


def test_what_is_in_use_is_for_administrators_only() -> None:
    in_use = InUse(frozenset({("gpu.example.com", "pool", "a")}))
    assert devices(given([pool(A, B)], claim(request()), in_use=in_use)) == [["b"]]
    found = given([pool(A, B)], claim(request(adminAccess=True)), in_use=in_use)
    assert found is not None and found[0]["devices"]["results"] == [
        {"request": "r", "driver": "gpu.example.com", "pool": "pool", "device": "a", "adminAccess": True}
    ]


def test_constraints() -> None:
    def on(name: str, board: str) -> Obj:
        return device(name, attributes={"board": {"string": board}})

    slices = [pool(on("a", "x"), on("b", "y"), on("c", "x"), on("d", "z"))]
    name = "gpu.example.com/board"
    assert devices(given(slices, claim(request(count=2), constraints=[{"matchAttribute": name}]))) == [["a", "c"]]
    apart = claim(request(count=3), constraints=[{"distinctAttribute": name}])
    assert devices(given(slices, apart)) == [["a", "b", "d"]]
    only = claim(request("p"), request("q"), constraints=[{"matchAttribute": name, "requests": ["q"]}])
    assert devices(given(slices, only)) == [["a", "b"]]
    with pytest.raises(AllocationError, match=r"cannot add device gpu.example.com/pool/b because a claim constraint"):
        given(slices, claim(request(allocationMode="All"), constraints=[{"matchAttribute": name}]))


def test_taints() -> None:
    tainted = device("a", taints=[{"key": "bad", "effect": "NoSchedule"}])
    harmless = device("a", taints=[{"key": "bad", "effect": "None"}])
    assert devices(given([pool(tainted)], claim(request()))) is None
    assert devices(given([pool(harmless)], claim(request()))) == [["a"]]
    tolerations = [{"key": "bad", "operator": "Exists"}]
    found = given([pool(tainted)], claim(request(tolerations=tolerations)))
    assert found is not None and found[0]["devices"]["results"][0]["tolerations"] == tolerations


def test_partitions_share_counters() -> None:
    def part(name: str, memory: str) -> Obj:
        return device(name, consumesCounters=[{"counterSet": "gpu", "counters": {"memory": {"value": memory}}}])

    counters = {"name": "gpu", "counters": {"memory": {"value": "4Gi"}}}
    shared = pool(count=2, sharedCounters=[counters], nodeName="one")
    slices = [
        shared,
        pool(part("half", "2Gi"), part("other", "2Gi"), part("third", "1Gi"), part("whole", "4Gi"), count=2),
    ]
    assert devices(given(slices, claim(request(count=2)))) == [["half", "other"]]
    assert devices(given(slices, claim(request(count=3)))) is None
    in_use = InUse(frozenset({("gpu.example.com", "pool", "half")}))
    assert devices(given(slices, claim(request(count=2)), in_use=in_use)) is None
    assert devices(given(slices, claim(request()), in_use=in_use)) == [["other"]]
    unknown = pool(device("x", consumesCounters=[{"counterSet": "none", "counters": {}}]))
    with pytest.raises(NotHere, match="invalid resource pools were encountered"):
        given([unknown], claim(request()))


def test_capacity_is_shared_out() -> None:
    policy = {"default": "1Gi", "validRange": {"min": "1Gi", "max": "6Gi", "step": "1Gi"}}
    memory = {"memory": {"value": "8Gi", "requestPolicy": policy}}
    shared = [pool(device("a", allowMultipleAllocations=True, capacity=memory))]

    def wanting(amount: str) -> Obj:
        return claim(request(capacity={"requests": {"memory": amount}}))

    found = given(shared, wanting("2500Mi"), claim(request()))
    assert found is not None
    first, second = (one["devices"]["results"][0] for one in found)
    assert (first["shareID"], first["consumedCapacity"]) == ("share", {"memory": "3Gi"})
    assert second["consumedCapacity"] == {"memory": "1Gi"}
    assert given(shared, wanting("7Gi")) is None, "more than the device gives at once"
    assert given(shared, wanting("5Gi"), wanting("4Gi")) is None, "more than there is"
    key = ("gpu.example.com", "pool", "a")
    used = consumption(shared[0]["spec"]["devices"][0], {"memory": "6Gi"})
    assert used is not None
    assert given(shared, wanting("3Gi"), in_use=InUse(consumed={key: used})) is None
    assert given(shared, claim(request(capacity={"requests": {"cores": "1"}}))) is None, "no such capacity"


def test_what_is_written() -> None:
    memory = {"memory": {"value": "8Gi"}}
    more = device("b", bindingConditions=["ready"], bindingFailureConditions=["failed"], bindsToNode=True)
    slices = [pool({**more, "capacity": memory}, allNodes=True)]
    opaque = {"driver": "gpu.example.com", "parameters": {"own": 1}}
    wanted = claim(
        choice("r", request("none", 9), {"name": "one", "exactly": {"deviceClassName": "big"}}),
        config=[
            {"requests": ["r/one"], "opaque": opaque},
            {"requests": ["r/none"], "opaque": opaque},
            {"opaque": opaque},
        ],
    )
    assert given(slices, wanted) == [
        {
            "devices": {
                "results": [
                    {
                        "request": "r/one",
                        "driver": "gpu.example.com",
                        "pool": "pool",
                        "device": "b",
                        "bindingConditions": ["ready"],
                        "bindingFailureConditions": ["failed"],
                    }
                ],
                "config": [
                    {
                        "source": "FromClass",
                        "requests": ["r/one"],
                        "opaque": {"driver": "gpu.example.com", "parameters": {"mode": "big"}},
                    },
                    {"source": "FromClaim", "requests": ["r/one"], "opaque": opaque},
                    {"source": "FromClaim", "opaque": opaque},
                ],
            },
            "nodeSelector": {
                "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["one"]}]}]
            },
        }
    ]


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (claim(request(deviceClassName="none")), "could not retrieve device class none"),
        (claim(request(count=33)), "number of requested devices 33 exceeds the claim limit of 32"),
        (claim(request(), constraints=[{}]), "constraint #0: empty constraint"),
    ],
)
def test_what_cannot_be(wanted: Obj, complaint: str) -> None:
    with pytest.raises(AllocationError, match=complaint):
        given([pool(A)], wanted)


def test_all_of_a_pool_that_is_being_written_is_not_known() -> None:
    with pytest.raises(AllocationError, match=r"resource pool gpu.example.com/pool is currently being updated"):
        given([pool(A, count=2)], claim(request(allocationMode="All")))


def test_a_search_that_takes_too_long_is_given_up() -> None:
    many = [device(f"d{index}", attributes={"n": {"int": index}}) for index in range(30)]
    hopeless = claim(request(count=15), constraints=[{"distinctAttribute": "gpu.example.com/n"}], name="a")
    never = claim(request(count=16), name="b")
    with pytest.raises(TimedOut):
        given([pool(*many)], hopeless, never, expired=lambda: True)


def test_against_trying_everything() -> None:
    """Random devices and claims: a solution is found exactly when there is one, and it is one."""
    rng = random.Random(5)
    solved = 0
    for case in range(1500):
        colours = [rng.choice("rgb") for _ in range(rng.randint(1, 5))]
        offered = [device(f"d{index}", attributes={"c": {"string": each}}) for index, each in enumerate(colours)]
        claims, slots = [], []
        for number in range(rng.randint(1, 2)):
            requests = []
            for index in range(rng.randint(1, 2)):
                colour = rng.choice(["r", "g", "b", ""])
                expression = f'device.attributes["gpu.example.com"].c == "{colour}"' if colour else "true"
                count = rng.randint(1, 2)
                requests.append(request(f"r{index}", count, selectors=selecting(expression)))
                slots += [(number, colour)] * count
            alike = [{"matchAttribute": "gpu.example.com/c"}] if rng.random() < 0.4 else []
            claims.append(claim(*requests, name=f"claim-{number}", constraints=alike))
        found = devices(given([pool(*offered)], *claims))

        possible = any(
            _good(chosen, colours, slots, claims) for chosen in itertools.permutations(range(len(offered)), len(slots))
        )
        assert (found is not None) == possible, f"case {case}"
        if found is not None:
            solved += 1
            chosen = tuple(int(name[1:]) for one in found for name in one)
            assert len(set(chosen)) == len(slots) and _good(chosen, colours, slots, claims), f"case {case}"
    assert 200 < solved < 1300


def _good(chosen: tuple[int, ...], colours: list[str], slots: list[tuple[int, str]], claims: list[Obj]) -> bool:
    """Each slot (of a claim, for a colour) has a device that will do, and claims that want one colour have one."""
    pairs = [*zip(chosen, slots, strict=True)]
    return all(not colour or colours[index] == colour for index, (_, colour) in pairs) and all(
        len({colours[index] for index, (number, _) in pairs if number == which}) <= 1
        for which, each in enumerate(claims)
        if each["spec"]["devices"]["constraints"]
    )


def test_extended_resources_are_claims() -> None:
    def container(name: str, amount: int, **more: Any) -> Obj:
        return {"name": name, "resources": {"requests": {"cpu": "1", "example.com/gpu": str(amount)}}, **more}

    pod = {
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {
            "initContainers": [container("setup", 4), container("side", 1, restartPolicy="Always")],
            "containers": [container("main", 2), {"name": "none"}],
        },
    }
    made = extended_claim(pod, ["example.com/gpu"], lambda resource: CLASSES["gpu"])
    counts = {each["name"]: each["exactly"]["count"] for each in made.claim["spec"]["devices"]["requests"]}
    # What runs before has what comes later, and asks for what is lacking then.
    assert counts == {"container-0-request-1": 1, "container-1-request-1": 1, "container-2-request-1": 2}
    assert sorted((each["containerName"], each["requestName"]) for each in made.mappings) == [
        ("main", "container-2-request-1"),
        ("setup", "container-0-request-1"),
        ("setup", "container-1-request-1"),
        ("setup", "container-2-request-1"),
        ("side", "container-1-request-1"),
    ]
