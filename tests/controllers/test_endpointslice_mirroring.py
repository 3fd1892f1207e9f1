"""Endpoints made by hand, mirrored as EndpointSlices."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj
from shipwheel.client.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from shipwheel.controllers.endpointslice_mirroring import EndpointSliceMirroringController, mirror, should_mirror
from tests.controllers.fakeapi import Faults
from tests.controllers.world import World, without_faults

WEB = {"name": "web", "port": 80, "protocol": "TCP"}
SHOWN = {"name": "web", "port": 80, "protocol": "TCP"}


def endpoints(*subsets: Obj, **meta: object) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "s", "namespace": "default", "uid": "u", **meta},
        "subsets": list(subsets),
    }


def subset(*ips: str, not_ready: tuple[str, ...] = (), ports: tuple[Obj, ...] = (WEB,)) -> Obj:
    made: Obj = {"ports": list(ports)}
    if ips:
        made["addresses"] = [{"ip": ip} for ip in ips]
    if not_ready:
        made["notReadyAddresses"] = [{"ip": ip} for ip in not_ready]
    return made


def entry(ip: str, ready: bool = True, **fields: object) -> Obj:
    return {"addresses": [ip], "conditions": {"ready": ready}, **fields}


def shown(made: Obj) -> list[tuple[str, list[int], list[str]]]:
    return sorted(
        (each["addressType"], [port["port"] for port in each["ports"]], [e["addresses"][0] for e in each["endpoints"]])
        for each in mirror(made, most=1000).slices.values()
    )


class TestMirror:
    def test_a_slice_for_each_set_of_ports_and_family(self):
        made = endpoints(
            subset("1.1.1.1", "fd00::1"), subset("1.1.1.2", ports=({"name": "web", "port": 81, "protocol": "TCP"},))
        )
        assert shown(made) == [
            ("IPv4", [80], ["1.1.1.1"]),
            ("IPv4", [81], ["1.1.1.2"]),
            ("IPv6", [80], ["fd00::1"]),
        ]

    def test_subsets_that_belong_together_are_one(self):
        other = {"name": "admin", "port": 81, "protocol": "TCP"}
        made = endpoints(subset("1.1.1.1"), subset("1.1.1.1", ports=(other,)), subset("1.1.1.2"))
        assert shown(made) == [("IPv4", [80], ["1.1.1.1", "1.1.1.2"]), ("IPv4", [81], ["1.1.1.1"])]

    def test_an_endpoint(self):
        made = endpoints(
            {
                "addresses": [{"ip": "1.1.1.1", "nodeName": "n1", "hostname": "h", "targetRef": {"kind": "Pod"}}],
                "notReadyAddresses": [{"ip": "1.1.1.2"}],
                "ports": [{"port": 80, "appProtocol": "http"}],
            }
        )
        (one,) = mirror(made, most=9).slices.values()
        assert one["endpoints"] == [
            entry("1.1.1.1", nodeName="n1", hostname="h", targetRef={"kind": "Pod"}),
            entry("1.1.1.2", False),
        ]
        assert one["ports"] == [{"name": "", "port": 80, "protocol": "TCP", "appProtocol": "http"}]

    def test_metadata(self):
        annotations = {
            "a": "b",
            "endpoints.kubernetes.io/last-change-trigger-time": "t",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
        }
        made = endpoints(subset("1.1.1.1"), labels={"x": "y"}, annotations=annotations)
        (one,) = mirror(made, most=9).slices.values()
        assert one["metadata"]["labels"] == {
            "x": "y",
            "kubernetes.io/service-name": "s",
            "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
        }
        assert one["metadata"]["annotations"] == {"a": "b"}
        (owner,) = one["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Endpoints", "s", "u", True)

    @pytest.mark.parametrize(
        ("made", "most", "kept", "invalid", "skipped"),
        [
            (endpoints(subset("1.1.1.1", "odd", "1.1.1.3")), 9, 2, 1, 0),
            (endpoints(subset("1.1.1.1", "1.1.1.2", "1.1.1.3")), 2, 2, 0, 1),
            (endpoints(subset("1.1.1.1", not_ready=("1.1.1.2", "1.1.1.3"))), 2, 2, 0, 1),
            # Once there are enough, nobody looks whether the others are valid.
            (endpoints(subset("1.1.1.1", "1.1.1.2", "odd")), 2, 2, 0, 1),
        ],
    )
    def test_what_cannot_be_shown_is_counted(self, made, most, kept, invalid, skipped):
        found = mirror(made, most=most)
        assert sum(len(each["endpoints"]) for each in found.slices.values()) == kept
        assert (found.invalid, found.skipped) == (invalid, skipped)


@pytest.mark.parametrize(
    ("made", "spec", "expected"),
    [
        (endpoints(), {}, True),
        (endpoints(), None, False),
        (endpoints(), {"selector": {"a": "b"}}, False),
        (endpoints(labels={"endpointslice.kubernetes.io/skip-mirror": "true"}), {}, False),
        (endpoints(labels={"endpointslice.kubernetes.io/skip-mirror": "no"}), {}, True),
        (endpoints(annotations={"control-plane.alpha.kubernetes.io/leader": "{}"}), {}, False),
    ],
)
def test_what_is_mirrored(made, spec, expected):
    assert should_mirror(made, None if spec is None else {"spec": spec}) is expected


def cluster(faults: Faults | None = None) -> World:
    world = World((EndpointSliceMirroringController,), faults or Faults())
    world.api.create(SERVICES, {"metadata": {"name": "s", "namespace": "default"}, "spec": {}})
    return world


def slices(world: World) -> list[Obj]:
    return world.api.list(ENDPOINT_SLICES)


def addresses(world: World) -> set[str]:
    return {each["addresses"][0] for one in slices(world) for each in one["endpoints"]}


def set_subsets(world: World, *subsets: Obj) -> None:
    world.api.change(ENDPOINTS, "s", "default", lambda obj: obj.update(subsets=list(subsets)))


async def test_changes_are_followed_in_place():
    world = cluster()
    async with world.running():
        world.api.create(ENDPOINTS, endpoints(subset("1.1.1.1")))
        await world.settle(1)
        (first,) = slices(world)
        assert first["metadata"]["name"].startswith("s-")
        set_subsets(world, subset("1.1.1.1", "1.1.1.2"))
        await world.settle(1)
        (second,) = slices(world)
        assert second["metadata"]["name"] == first["metadata"]["name"]
        assert addresses(world) == {"1.1.1.1", "1.1.1.2"}
        # Other ports: the slice is used again rather than replaced.
        set_subsets(world, subset("1.1.1.1", ports=({"port": 9, "protocol": "TCP"},)))
        await world.settle(1)
        (third,) = slices(world)
        assert (third["metadata"]["name"], third["ports"][0]["port"]) == (first["metadata"]["name"], 9)
        set_subsets(world)
        await world.settle(1)
        assert slices(world) == []


async def test_labels_and_annotations_are_followed_too():
    world = cluster()
    async with world.running():
        world.api.create(ENDPOINTS, endpoints(subset("1.1.1.1"), annotations={"a": "1"}))
        await world.settle(1)
        world.api.change(
            ENDPOINTS, "s", "default", lambda obj: obj["metadata"].update(labels={"x": "y"}, annotations={})
        )
        await world.settle(1)
        (one,) = slices(world)
        assert one["metadata"]["labels"]["x"] == "y"
        assert not one["metadata"].get("annotations")


async def test_nothing_is_written_twice():
    world = cluster()
    async with world.running():
        world.api.create(ENDPOINTS, endpoints(subset("1.1.1.1", "fd00::1"), annotations={"a": "1"}))
        await world.settle(1)
        before = world.api.writes
        world.api.change(SERVICES, "s", "default", lambda obj: obj["metadata"].update(annotations={"a": "b"}))
        await world.settle(1)
        assert world.api.writes == before


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.api.delete(SERVICES, "s", "default"),
        lambda world: world.api.delete(ENDPOINTS, "s", "default"),
        lambda world: world.api.change(SERVICES, "s", "default", lambda obj: obj["spec"].update(selector={"a": "b"})),
        lambda world: world.api.change(
            ENDPOINTS,
            "s",
            "default",
            lambda obj: obj["metadata"].update(labels={"endpointslice.kubernetes.io/skip-mirror": "true"}),
        ),
    ],
)
async def test_slices_go_when_they_are_not_wanted_any_more(change):
    world = cluster()
    async with world.running():
        world.api.create(ENDPOINTS, endpoints(subset("1.1.1.1")))
        await world.settle(1)
        assert slices(world)
        change(world)
        await world.settle(1)
        assert slices(world) == []


async def test_a_slice_that_somebody_changes_or_deletes_is_put_right():
    world = cluster()
    async with world.running():
        world.api.create(ENDPOINTS, endpoints(subset("1.1.1.1")))
        await world.settle(1)
        name = slices(world)[0]["metadata"]["name"]
        world.api.change(ENDPOINT_SLICES, name, "default", lambda obj: obj.update(endpoints=[]))
        await world.settle(1)
        assert addresses(world) == {"1.1.1.1"}
        world.api.delete(ENDPOINT_SLICES, name, "default")
        await world.settle(1)
        assert addresses(world) == {"1.1.1.1"}


async def test_endpoints_made_anew_own_their_slices():
    world = cluster()
    async with world.running():
        world.api.create(ENDPOINTS, endpoints(subset("1.1.1.1")))
        await world.settle(1)
        world.api.delete(ENDPOINTS, "s", "default")
        made = endpoints(subset("1.1.1.1"))
        made["metadata"]["uid"] = "another"
        world.api.create(ENDPOINTS, made)
        await world.settle(1)
        assert [one["metadata"]["ownerReferences"][0]["uid"] for one in slices(world)] == ["another"]


async def test_what_is_left_out_is_told():
    world = cluster()
    async with world.running():
        many = [f"10.0.{number // 250}.{number % 250}" for number in range(1003)]
        world.api.create(ENDPOINTS, endpoints(subset(*many), subset("odd", ports=({"port": 9, "protocol": "TCP"},))))
        await world.settle(1)
        assert len(addresses(world)) == 1000
        assert world.events("TooManyAddressesToMirror")[0][1] == (
            "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 4 addresses were skipped"
        )
        assert world.events("InvalidIPAddress")[0][1] == (
            "Skipped 1 invalid IP addresses when mirroring to EndpointSlices"
        )


@pytest.mark.parametrize("seed", range(5))
async def test_the_mirror_is_right_in_the_end_whatever_fails(seed):
    faults = Faults(fail_before=0.1, fail_after=0.1, conflict=0.1, break_watch=0.1, expire=0.3, lag=0.3, seed=seed)
    world = cluster(faults)
    async with world.running():
        world.api.create(ENDPOINTS, endpoints())
        for number in range(15):
            set_subsets(world, subset(*(f"10.0.0.{index}" for index in range(number % 4 + 1))))
            await world.settle(0.5)
        without_faults(world)
        wanted = {"10.0.0.0", "10.0.0.1", "10.0.0.2"}
        await world.until(lambda: addresses(world) == wanted and len(slices(world)) == 1, within=2000, step=10)
