"""Endpoints: their canonical form, what pods become in them, and the loop."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj
from shipwheel.client.resources import ENDPOINTS, PODS, SERVICES
from shipwheel.controllers.endpoints import EndpointsController, subsets_of, truncate, wanted_labels
from shipwheel.controllers.subsets import repack
from tests.controllers.fakeapi import Faults
from tests.controllers.world import CONFIG, World, without_faults

# The canonical form


def at(ip: str, uid: str = "") -> Obj:
    return {"ip": ip, "targetRef": {"uid": uid}} if uid else {"ip": ip}


def port(number: int, name: str = "") -> Obj:
    return {**({"name": name} if name else {}), "port": number, "protocol": "TCP"}


A, B, C = at("1.1.1.1"), at("1.1.1.2"), at("1.1.1.3")
WEB, ADMIN = port(80, "web"), port(81, "admin")


@pytest.mark.parametrize(
    ("subsets", "packed"),
    [
        ([], []),
        ([{"addresses": [B, A], "ports": [WEB]}], [{"addresses": [A, B], "ports": [WEB]}]),
        # Same ports together, and same addresses together.
        (
            [{"addresses": [A], "ports": [WEB]}, {"addresses": [B], "ports": [WEB]}],
            [{"addresses": [A, B], "ports": [WEB]}],
        ),
        (
            [{"addresses": [A], "ports": [WEB]}, {"addresses": [A], "ports": [ADMIN]}],
            [{"addresses": [A], "ports": [ADMIN, WEB]}],
        ),
        # What only some serve is apart.
        (
            [{"addresses": [A], "ports": [WEB]}, {"addresses": [B], "ports": [WEB, ADMIN]}],
            [{"addresses": [B], "ports": [ADMIN]}, {"addresses": [A, B], "ports": [WEB]}],
        ),
        # Ready at one port and not at another.
        (
            [{"addresses": [A], "ports": [WEB]}, {"notReadyAddresses": [A], "ports": [ADMIN]}],
            [{"notReadyAddresses": [A], "ports": [ADMIN]}, {"addresses": [A], "ports": [WEB]}],
        ),
        # Both ready and not at one port: not.
        ([{"addresses": [A], "notReadyAddresses": [A], "ports": [WEB]}], [{"notReadyAddresses": [A], "ports": [WEB]}]),
        ([{"addresses": [A, B]}], [{"addresses": [A, B]}]),
        # The same address of two pods is two.
        (
            [{"addresses": [at("1.1.1.1", "y"), at("1.1.1.1", "x")], "ports": [WEB]}],
            [{"addresses": [at("1.1.1.1", "x"), at("1.1.1.1", "y")], "ports": [WEB]}],
        ),
        ([{"addresses": [A, A], "ports": [WEB]}], [{"addresses": [A], "ports": [WEB]}]),
        ([{"addresses": [A], "ports": [{"port": 80}]}], [{"addresses": [A], "ports": [port(80)]}]),
    ],
)
def test_packing(subsets, packed):
    assert repack(subsets) == packed


some = st.lists(
    st.builds(
        lambda ready, others, ports: {"addresses": ready, "notReadyAddresses": others, "ports": ports},
        st.lists(st.sampled_from([A, B, C]), max_size=3),
        st.lists(st.sampled_from([A, B, C]), max_size=3),
        st.lists(st.sampled_from([WEB, ADMIN, port(9)]), max_size=3, unique_by=lambda each: each["port"]),
    ),
    max_size=5,
)


def facts(subsets: list[Obj]) -> dict[tuple[str, int], bool]:
    """Whether each address is ready at each port (0: it has none)."""
    found: dict[tuple[str, int], bool] = {}
    for subset in subsets:
        for number in [each["port"] for each in subset.get("ports") or ()] or [0]:
            for field, ready in (("addresses", True), ("notReadyAddresses", False)):
                for address in subset.get(field) or ():
                    found[address["ip"], number] = ready and found.get((address["ip"], number), True)
    return found


@given(some, st.randoms())
def test_packing_says_the_same_once_and_in_one_way(subsets, dice):
    packed = repack(subsets)
    said, shown = facts(subsets), facts(packed)
    assert shown.items() <= said.items()
    # What is said without ports goes without saying where the same is said with some.
    assert {ip for ip, number in said.keys() - shown.keys()} <= {ip for ip, number in shown if number}
    assert not any(number for _, number in said.keys() - shown.keys())
    assert repack(packed) == packed
    shuffled = [{key: dice.sample(value, len(value)) for key, value in each.items()} for each in subsets]
    dice.shuffle(shuffled)
    assert repack(shuffled) == packed
    ports = [each["port"] for subset in packed for each in subset.get("ports") or ()]
    assert len(ports) == len(set(ports))


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        # (ready, not ready) of each subset, and what is left of them
        ([(600, 400)], [(600, 400)]),
        ([(1200, 50)], [(1000, 0)]),
        ([(1000, 50)], [(1000, 0)]),
        ([(900, 300)], [(900, 100)]),
        ([(0, 1500)], [(0, 1000)]),
        ([(800, 0), (800, 0)], [(500, 0), (500, 0)]),
        ([(600, 0), (600, 0), (600, 0)], [(334, 0), (334, 0), (332, 0)]),
        ([(300, 900), (300, 300)], [(300, 300), (300, 100)]),
        ([(1001, 0), (0, 5)], [(1000, 0)]),
    ],
)
def test_at_most_a_thousand_addresses(sizes, kept):
    subsets = [
        {
            "addresses": [at(f"10.0.{index}.{number}") for number in range(ready)],
            "notReadyAddresses": [at(f"10.1.{index}.{number}") for number in range(others)],
            "ports": [port(80 + index)],
        }
        for index, (ready, others) in enumerate(sizes)
    ]
    cut, over = truncate(subsets)
    shown = [(len(each.get("addresses") or ()), len(each.get("notReadyAddresses") or ())) for each in cut]
    assert (shown, over) == (kept, sizes != kept)


# Pods


def service(name: str = "s", **spec: object) -> Obj:
    full = {"selector": {"app": "s"}, "clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": "TCP"}], **spec}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": full}


def pod(name: str = "p", *, ready: bool = True, ips: tuple[str, ...] = ("1.1.1.1",), **spec: object) -> Obj:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": {"app": "s"}},
        "spec": {"containers": [{"name": "c"}], **spec},
        "status": {
            "phase": "Running",
            "podIP": ips[0] if ips else "",
            "podIPs": [{"ip": each} for each in ips],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def gone(made: Obj, **meta: object) -> Obj:
    return {**made, "metadata": {**made["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z", **meta}}


def ended(made: Obj, phase: str) -> Obj:
    return {**made, "status": {**made["status"], "phase": phase}}


def of(made: Obj, name: str = "p", ip: str = "1.1.1.1") -> Obj:
    return {"ip": ip, "targetRef": {"kind": "Pod", "namespace": "default", "name": name, "uid": f"uid-{name}"}, **made}


class TestSubsets:
    @pytest.mark.parametrize(
        ("made", "expected"),
        [
            (pod(), "addresses"),
            (pod(ready=False), "notReadyAddresses"),
            (gone(pod()), None),
            (ended(pod(), "Succeeded"), None),
            (ended(pod(), "Failed"), None),
            (pod(ips=()), None),
        ],
    )
    def test_which_pods_are_in_it(self, made, expected):
        expected = [{expected: [of({})], "ports": [port(80)]}] if expected else []
        assert subsets_of(service(), [made]) == expected

    @pytest.mark.parametrize("made", [pod(), pod(ready=False), gone(pod(ready=False))])
    def test_all_are_ready_when_even_those_that_are_not_are_to_be_published(self, made):
        found = subsets_of(service(publishNotReadyAddresses=True), [made])
        assert found == [{"addresses": [of({})], "ports": [port(80)]}]

    def test_named_ports_are_the_pod_s_own(self):
        def serving(name: str, number: int) -> Obj:
            containers = [{"name": "c", "ports": [{"name": "http", "containerPort": number}]}]
            return pod(name, ips=(f"1.1.1.{number % 10}",), containers=containers)

        made = service(ports=[{"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"}])
        assert subsets_of(made, [serving("a", 8081), serving("b", 8082), pod("c")]) == [
            {"addresses": [of({}, "a", "1.1.1.1")], "ports": [port(8081, "web")]},
            {"addresses": [of({}, "b", "1.1.1.2")], "ports": [port(8082, "web")]},
        ]

    def test_a_headless_service_needs_no_ports(self):
        assert subsets_of(service(clusterIP="None", ports=[]), [pod()]) == [{"addresses": [of({})]}]
        assert subsets_of(service(ports=[]), [pod()]) == []

    @pytest.mark.parametrize(
        ("families", "ip"), [(["IPv6", "IPv4"], "fd00::1"), (["IPv4"], "1.1.1.1"), ([], "1.1.1.1")]
    )
    def test_the_first_family_counts(self, families, ip):
        (subset,) = subsets_of(service(ipFamilies=families), [pod(ips=("1.1.1.1", "fd00::1"))])
        assert subset["addresses"][0]["ip"] == ip

    def test_a_pod_without_an_address_of_the_family_is_left_out(self):
        assert subsets_of(service(ipFamilies=["IPv6"]), [pod()]) == []

    def test_node_hostname_and_application_protocol(self):
        made = service(ports=[{"port": 80, "protocol": "TCP", "appProtocol": "http"}])
        (subset,) = subsets_of(made, [pod(nodeName="n1", hostname="h", subdomain="s")])
        assert subset["addresses"] == [of({"nodeName": "n1", "hostname": "h"})]
        assert subset["ports"] == [{**port(80), "appProtocol": "http"}]
        (subset,) = subsets_of(made, [pod(hostname="h", subdomain="other")])
        assert "hostname" not in subset["addresses"][0]


@pytest.mark.parametrize(
    ("made", "labels"),
    [
        (service(), {}),
        (service(clusterIP="None"), {"service.kubernetes.io/headless": ""}),
    ],
)
def test_labels(made, labels):
    made["metadata"]["labels"] = {"a": "b", "service.kubernetes.io/headless": "no"}
    assert wanted_labels(made) == {"a": "b", "endpoints.kubernetes.io/managed-by": "endpoint-controller", **labels}


# The loop


def cluster(faults: Faults | None = None) -> World:
    return World((EndpointsController,), faults or Faults())


def endpoints(world: World, name: str = "s") -> Obj | None:
    return world.api.get(ENDPOINTS, name, "default")


def addresses(world: World, field: str = "addresses") -> list[str]:
    found = endpoints(world)
    return [each["ip"] for subset in (found or {}).get("subsets") or () for each in subset.get(field) or ()]


async def test_they_follow_the_pods():
    world = cluster()
    async with world.running():
        world.api.create(SERVICES, service())
        await world.settle()
        assert endpoints(world)["subsets"] == []
        world.api.create(PODS, pod("a"))
        world.api.create(PODS, pod("b", ready=False, ips=("1.1.1.2",)))
        await world.settle()
        assert (addresses(world), addresses(world, "notReadyAddresses")) == (["1.1.1.1"], ["1.1.1.2"])
        world.api.change(PODS, "b", "default", lambda made: made.update(status=pod("b", ips=("1.1.1.2",))["status"]))
        world.api.delete(PODS, "a", "default")
        await world.settle()
        assert (addresses(world), addresses(world, "notReadyAddresses")) == (["1.1.1.2"], [])
        world.api.change(PODS, "b", "default", lambda made: made["metadata"].update(labels={}))
        await world.settle()
        assert addresses(world) == []


async def test_changes_that_do_not_matter_write_nothing():
    world = cluster()
    async with world.running():
        world.api.create(SERVICES, service())
        world.api.create(PODS, pod("a"))
        await world.settle()
        before = world.api.writes
        world.api.change(PODS, "a", "default", lambda made: made["metadata"].update(annotations={"a": "b"}))
        world.api.change(SERVICES, "s", "default", lambda made: made["spec"].update(sessionAffinity="ClientIP"))
        await world.settle(1)
        assert world.api.writes == before


async def test_a_service_that_waits_for_its_finalizer_still_has_them():
    world = cluster()
    async with world.running():
        made = service()
        made["metadata"]["finalizers"] = ["service.kubernetes.io/load-balancer-cleanup"]
        world.api.create(SERVICES, made)
        world.api.create(PODS, pod("a"))
        await world.settle()
        world.api.delete(SERVICES, "s", "default")
        world.api.create(PODS, pod("b", ips=("1.1.1.2",)))
        await world.settle()
        assert addresses(world) == ["1.1.1.1", "1.1.1.2"]
        world.api.change(SERVICES, "s", "default", lambda obj: obj["metadata"].update(finalizers=[]))
        await world.settle()
        assert endpoints(world) is None


async def test_what_others_changed_or_deleted_comes_back():
    world = cluster()
    async with world.running():
        world.api.create(SERVICES, service())
        world.api.create(PODS, pod("a"))
        await world.settle()
        world.api.delete(ENDPOINTS, "s", "default")
        await world.settle()
        assert addresses(world) == ["1.1.1.1"]


async def test_what_is_left_over_goes_at_the_start_but_locks_do_not():
    world = cluster()
    lock = {"control-plane.alpha.kubernetes.io/leader": "{}"}
    world.api.create(ENDPOINTS, {"metadata": {"name": "left", "namespace": "default"}})
    world.api.create(ENDPOINTS, {"metadata": {"name": "lock", "namespace": "default", "annotations": lock}})
    async with world.running():
        await world.settle()
        assert [each["metadata"]["name"] for each in world.api.list(ENDPOINTS)] == ["lock"]


@pytest.mark.parametrize("spec", [{"selector": None}, {"type": "ExternalName", "externalName": "x"}])
async def test_others_are_left_to_their_makers(spec):
    world = cluster()
    async with world.running():
        made = service(**spec)
        made["spec"] = {key: value for key, value in made["spec"].items() if value is not None}
        world.api.create(SERVICES, made)
        world.api.create(
            ENDPOINTS, {"metadata": {"name": "s", "namespace": "default"}, "subsets": [{"addresses": [A]}]}
        )
        world.api.create(PODS, pod("a", ips=("9.9.9.9",)))
        await world.settle()
        assert addresses(world) == ["1.1.1.1"]


async def test_when_the_change_happened_is_told():
    world = cluster()
    async with world.running():
        made = pod("a")
        made["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:00Z"
        world.api.create(SERVICES, service())
        await world.settle()
        world.api.create(PODS, made)
        await world.settle()
        annotations = endpoints(world)["metadata"]["annotations"]
        assert annotations == {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"}


async def test_too_many():
    world = cluster()
    async with world.running():
        world.api.create(SERVICES, service())
        for number in range(1003):
            world.api.create(PODS, pod(f"p{number}", ips=(f"10.0.{number // 250}.{number % 250}",)))
        await world.until(lambda: len(addresses(world)) == 1000)
        assert endpoints(world)["metadata"]["annotations"]["endpoints.kubernetes.io/over-capacity"] == "truncated"
        for number in range(5):
            world.api.delete(PODS, f"p{number}", "default")
        await world.until(lambda: len(addresses(world)) == 998)
        assert "endpoints.kubernetes.io/over-capacity" not in endpoints(world)["metadata"]["annotations"]


async def test_many_changes_are_written_together():
    world = World((EndpointsController,), config=replace(CONFIG, endpoint_updates_batch_period=1.0))
    async with world.running():
        world.api.create(SERVICES, service())
        await world.settle(2)
        before = world.api.writes
        for number in range(5):
            world.api.create(PODS, pod(f"p{number}", ips=(f"10.0.0.{number}",)))
            await world.settle(0.1)
        await world.settle(2)
        assert (world.api.writes - before, len(addresses(world))) == (1, 5)


@pytest.mark.parametrize("seed", range(5))
async def test_they_are_right_in_the_end_whatever_fails(seed):
    faults = Faults(fail_before=0.1, fail_after=0.1, conflict=0.1, break_watch=0.1, expire=0.3, lag=0.3, seed=seed)
    world, dice = cluster(faults), random.Random(seed)
    async with world.running():
        world.api.create(SERVICES, service())
        for number in range(30):
            name = f"p{dice.randrange(6)}"
            present = world.api.get(PODS, name, "default")
            if present is None:
                world.api.create(PODS, pod(name, ready=dice.random() < 0.6, ips=(f"10.0.0.{number}",)))
            elif dice.random() < 0.5:
                world.api.delete(PODS, name, "default")
            else:
                world.api.change(PODS, name, "default", lambda made: made["status"].update(conditions=[]))
            await world.settle(dice.random())
        without_faults(world)
        pods = world.api.list(PODS)
        ready = {
            each["status"]["podIP"] for each in pods if any(c["status"] == "True" for c in each["status"]["conditions"])
        }
        others = {each["status"]["podIP"] for each in pods} - ready
        await world.until(
            lambda: (set(addresses(world)), set(addresses(world, "notReadyAddresses"))) == (ready, others),
            within=2000,
            step=10,
        )
