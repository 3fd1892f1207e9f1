"""EndpointSlices: what is in them, and that as few as possible change."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj
from shipwheel.client.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES
from shipwheel.controllers.endpoints import EndpointsController
from shipwheel.controllers.endpointslice import (
    MANAGED_BY,
    SERVICE_NAME,
    EndpointSliceController,
    address_types,
    endpoint,
    endpoint_ports,
    plan,
    slice_labels,
)
from shipwheel.controllers.endpointslice_mirroring import EndpointSliceMirroringController
from tests.controllers import objects
from tests.controllers.fakeapi import Faults
from tests.controllers.world import World, without_faults

LABELS = {"app": "web"}


def service(name: str = "web", **spec: object) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": objects.meta(name, labels={"team": "a"}),
        "spec": {
            "clusterIP": "10.96.0.9",
            "ipFamilies": ["IPv4"],
            "selector": LABELS,
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            **spec,
        },
    }


def pod(number: int, **fields: object) -> Obj:
    address = f"10.1.{number // 250}.{number % 250 + 1}"
    status = {"podIP": address, "podIPs": [{"ip": address}]}
    return objects.pod(f"p{number}", labels=LABELS, status=status, **fields)


def some_node(name: str) -> Obj | None:
    return objects.node(name or "n1", labels={"topology.kubernetes.io/zone": "z1"})


class TestEndpoint:
    @pytest.mark.parametrize(
        ("pod_fields", "spec", "expected"),
        [
            ({}, {}, (True, True, False)),
            ({"ready": False}, {}, (False, False, False)),
            ({"deleted": True}, {}, (False, True, True)),
            ({"ready": False, "deleted": True}, {}, (False, False, True)),
            ({"ready": False}, {"publishNotReadyAddresses": True}, (True, False, False)),
        ],
    )
    def test_conditions(self, pod_fields, spec, expected):
        made = endpoint(service(**spec), pod(1, **pod_fields), some_node("n1"), "IPv4")
        found = made["conditions"]
        assert (found["ready"], found["serving"], found["terminating"]) == expected

    def test_where_it_is(self):
        made = endpoint(service(), pod(1), some_node("n1"), "IPv4")
        assert (made["nodeName"], made["zone"], made["addresses"]) == ("n1", "z1", ["10.1.0.2"])
        assert made["targetRef"] == {"kind": "Pod", "namespace": "default", "name": "p1", "uid": "uid-p1"}

    def test_a_family_that_the_pod_has_not(self):
        assert endpoint(service(), pod(1), some_node("n1"), "IPv6") is None

    def test_its_own_name_under_the_governing_service(self):
        named = pod(1, spec={"hostname": "web-0", "subdomain": "web"})
        assert endpoint(service(), named, None, "IPv4")["hostname"] == "web-0"
        assert "hostname" not in endpoint(service("other"), named, None, "IPv4")

    def test_named_ports_are_looked_up_in_the_pod(self):
        by_name = service(ports=[{"name": "http", "port": 80, "targetPort": "web"}])
        with_port = pod(1, spec={"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 9000}]}]})
        assert endpoint_ports(by_name, with_port) == [{"name": "http", "protocol": "TCP", "port": 9000}]
        assert endpoint_ports(by_name, pod(2)) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ["IPv4"]),
        ({"ipFamilies": ["IPv6", "IPv4"]}, ["IPv6", "IPv4"]),
        ({"ipFamilies": None, "clusterIP": "fd00::1"}, ["IPv6"]),
        ({"ipFamilies": None, "clusterIP": "None"}, ["IPv4", "IPv6"]),
    ],
)
def test_families(spec, expected):
    assert address_types(service(**spec)) == expected


def test_labels():
    found = slice_labels(service(clusterIP="None"))
    assert found == {
        "team": "a",
        SERVICE_NAME: "web",
        MANAGED_BY: "endpointslice-controller.k8s.io",
        "service.kubernetes.io/headless": "",
    }


class Slices:
    """Slices with a plan carried out on them again and again."""

    def __init__(self, most: int = 100, **spec: object) -> None:
        self.service = service(**spec)
        self.most = most
        self.present: list[Obj] = []
        self.serial = 0

    def apply(self, pods: list[Obj]):
        changes = plan(self.service, "IPv4", pods, some_node, self.present, max_endpoints=self.most)
        gone = {each["metadata"]["name"] for each in (*changes.delete, *changes.update)}
        self.present = [each for each in self.present if each["metadata"]["name"] not in gone] + changes.update
        for each in changes.create:
            self.serial += 1
            each["metadata"] |= {"name": f"s{self.serial}", "uid": f"u{self.serial}"}
            self.present.append(each)
        return changes

    def names(self) -> set[str]:
        return {entry["targetRef"]["name"] for each in self.present for entry in each["endpoints"]}


class TestPlan:
    def test_a_hundred_to_a_slice(self):
        slices = Slices()
        slices.apply([pod(number) for number in range(250)])
        assert sorted(len(each["endpoints"]) for each in slices.present) == [50, 100, 100]

    def test_without_pods_there_is_one_empty_slice_and_it_stays(self):
        slices = Slices()
        assert len(slices.apply([]).create) == 1
        again = slices.apply([])
        assert (again.create, again.update, again.delete) == ([], [], [])

    def test_one_more_pod_changes_one_slice(self):
        slices = Slices()
        slices.apply([pod(number) for number in range(250)])
        changes = slices.apply([pod(number) for number in range(251)])
        assert (len(changes.create), len(changes.update), len(changes.delete)) == (0, 1, 0)

    def test_a_pod_that_becomes_unready_changes_only_its_slice(self):
        slices = Slices()
        pods = [pod(number) for number in range(250)]
        slices.apply(pods)
        pods[7] = pod(7, ready=False)
        assert len(slices.apply(pods).update) == 1

    def test_pods_with_other_ports_are_in_slices_of_their_own(self):
        slices = Slices(ports=[{"name": "http", "port": 80, "targetPort": "web"}])

        def with_port(number: int, port: int) -> Obj:
            return pod(number, spec={"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]})

        slices.apply([with_port(1, 8080), with_port(2, 8080), with_port(3, 9090)])
        assert sorted((each["ports"][0]["port"], len(each["endpoints"])) for each in slices.present) == [
            (8080, 2),
            (9090, 1),
        ]

    def test_a_pod_on_an_unknown_node_waits(self):
        changes = plan(service(), "IPv4", [pod(1)], lambda name: None, [], max_endpoints=100)
        assert [each["endpoints"] for each in changes.create] == [[]]

    @given(
        st.lists(st.frozensets(st.integers(0, 60), max_size=60), min_size=1, max_size=6),
        st.integers(3, 12),
    )
    def test_slices_show_exactly_the_pods_and_settle(self, rounds, most):
        slices = Slices(most)
        for wanted in rounds:
            before = {each["metadata"]["name"]: len(each["endpoints"]) for each in slices.present}
            changes = slices.apply([pod(number) for number in sorted(wanted)])
            assert slices.names() == {f"p{number}" for number in wanted}
            assert all(len(each["endpoints"]) <= most for each in slices.present)
            # New slices only for what does not fit elsewhere, each but the last one full.
            assert all(len(each["endpoints"]) == most for each in changes.create[:-1])
            assert len(changes.create) <= max(1, math.ceil(changes.added / most))
            assert len(changes.update) <= len(before)
            again = plan(
                slices.service,
                "IPv4",
                [pod(number) for number in sorted(wanted)],
                some_node,
                slices.present,
                max_endpoints=most,
            )
            assert (again.create, again.update, again.delete) == ([], [], [])


# On the fake API


def world(*controllers: type, faults: Faults | None = None) -> World:
    made = World(controllers or (EndpointSliceController, EndpointsController), faults or Faults())
    made.add_node("n1", labels={"topology.kubernetes.io/zone": "z1"})
    return made


def add_pods(cluster: World, count: int) -> None:
    for number in range(count):
        body = {
            "metadata": {"name": f"p{number}", "namespace": "default", "labels": LABELS},
            "spec": {"containers": []},
        }
        cluster.start_pod(cluster.api.create(PODS, body))


def addresses(cluster: World) -> set[str]:
    slices = [each for each in cluster.api.list(ENDPOINT_SLICES) if not each["metadata"].get("deletionTimestamp")]
    return {
        entry["targetRef"]["name"] for each in slices for entry in each["endpoints"] if entry["conditions"]["ready"]
    }


def running(cluster: World) -> set[str]:
    return {
        pod["metadata"]["name"]
        for pod in cluster.api.list(PODS)
        if pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp")
    }


@pytest.mark.parametrize("seed", [None, 1, 2, 3, 4])
async def test_slices_and_endpoints_follow_the_pods(seed):
    faults = Faults()
    if seed is not None:
        faults = Faults(fail_before=0.1, fail_after=0.1, conflict=0.1, break_watch=0.05, expire=0.2, lag=0.2, seed=seed)
    cluster = world(faults=faults)
    async with cluster.running():
        cluster.api.create(SERVICES, service())
        add_pods(cluster, 30)
        await cluster.until(lambda: addresses(cluster) == running(cluster), within=300)
        for number in range(0, 30, 3):
            cluster.api.delete(PODS, f"p{number}", "default")
        await cluster.until(lambda: addresses(cluster) == running(cluster), within=300)
        cluster.run_pods()
        without_faults(cluster)
        await cluster.pass_time(30, step=5)
        assert addresses(cluster) == running(cluster)
        (endpoints,) = cluster.api.list(ENDPOINTS)
        assert {each["targetRef"]["name"] for each in endpoints["subsets"][0]["addresses"]} == running(cluster)


async def test_a_service_without_endpoints_of_ours_is_left_alone():
    cluster = world()
    async with cluster.running():
        cluster.api.create(SERVICES, service(selector=None))
        cluster.api.create(SERVICES, service("alias", type="ExternalName"))
        await cluster.settle(5)
        assert cluster.api.list(ENDPOINT_SLICES) == []


async def test_a_pod_waits_for_its_node_to_be_known():
    cluster = world()
    cluster.api.delete(NODES, "n1")
    async with cluster.running():
        cluster.api.create(SERVICES, service())
        add_pods(cluster, 1)
        await cluster.settle(2)
        assert addresses(cluster) == set()
        cluster.add_node("n1")
        await cluster.until(lambda: addresses(cluster) == {"p0"}, within=5)


async def test_a_slice_that_somebody_deletes_comes_back():
    cluster = world()
    async with cluster.running():
        cluster.api.create(SERVICES, service())
        add_pods(cluster, 2)
        await cluster.until(lambda: len(addresses(cluster)) == 2)
        (each,) = cluster.api.list(ENDPOINT_SLICES)
        cluster.api.delete(ENDPOINT_SLICES, each["metadata"]["name"], "default")
        await cluster.until(lambda: len(addresses(cluster)) == 2)


async def test_a_thousand_addresses_and_a_word_that_there_are_more():
    cluster = world(EndpointsController)
    async with cluster.running():
        add_pods(cluster, 1005)
        cluster.api.create(SERVICES, service())
        await cluster.until(lambda: bool(cluster.api.list(ENDPOINTS)))
        (endpoints,) = cluster.api.list(ENDPOINTS)
        assert len(endpoints["subsets"][0]["addresses"]) == 1000
        assert endpoints["metadata"]["annotations"]["endpoints.kubernetes.io/over-capacity"] == "truncated"


async def test_endpoints_made_by_hand_are_mirrored():
    cluster = world(EndpointSliceMirroringController)
    async with cluster.running():
        cluster.api.create(SERVICES, service("db", selector=None))
        subset = {
            "addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}],
            "notReadyAddresses": [{"ip": "192.0.2.2"}],
            "ports": [{"name": "sql", "port": 5432}],
        }
        cluster.api.create(ENDPOINTS, {"metadata": {"name": "db", "namespace": "default"}, "subsets": [subset]})
        await cluster.until(lambda: len(cluster.api.list(ENDPOINT_SLICES)) == 2)
        by_family = {each["addressType"]: each for each in cluster.api.list(ENDPOINT_SLICES)}
        assert [entry["conditions"]["ready"] for entry in by_family["IPv4"]["endpoints"]] == [True, False]
        assert by_family["IPv6"]["endpoints"][0]["addresses"] == ["2001:db8::1"]
        assert by_family["IPv4"]["metadata"]["labels"][MANAGED_BY] == "endpointslicemirroring-controller.k8s.io"
        cluster.api.delete(ENDPOINTS, "db", "default")
        await cluster.until(lambda: not cluster.api.list(ENDPOINT_SLICES))


@pytest.mark.parametrize(
    "labels", [{"endpointslice.kubernetes.io/skip-mirror": "true"}]
)  # fmt: skip
async def test_endpoints_that_ask_not_to_be_mirrored(labels):
    cluster = world(EndpointSliceMirroringController)
    async with cluster.running():
        cluster.api.create(SERVICES, service("db", selector=None))
        meta = {"name": "db", "namespace": "default", "labels": labels}
        cluster.api.create(ENDPOINTS, {"metadata": meta, "subsets": [{"addresses": [{"ip": "192.0.2.1"}]}]})
        await cluster.settle(5)
        assert cluster.api.list(ENDPOINT_SLICES) == []
