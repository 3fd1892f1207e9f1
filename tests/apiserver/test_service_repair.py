"""What is found wrong with services' addresses and ports, and what is done about it."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from shipwheel.api.meta import Obj
from shipwheel.apiserver.ipaddresses import ip_address, is_foreign, is_right
from shipwheel.apiserver.service_repair import ServiceRepair, complaints
from shipwheel.client.client import Client
from shipwheel.client.resources import EVENTS, SERVICES
from tests.apiserver.world import World

asynchronous = pytest.mark.asyncio(loop_scope="module")

NETWORKS = [ip_network("10.96.0.0/16"), ip_network("fd00::/112")]


def service(name: str, *addresses: str, ports: tuple[int, ...] = (), created: int = 0, health: int = 0) -> Obj:
    spec: Obj = {"clusterIPs": list(addresses), "ports": [{"port": 80, "nodePort": port} for port in ports]}
    if health:
        spec["healthCheckNodePort"] = health
    meta = {"name": name, "namespace": "d", "creationTimestamp": f"2026-01-01T00:00:{created:02}Z"}
    return {"metadata": meta, "spec": spec}


def found(*services: Obj) -> list[tuple[str, str, str]]:
    return [(each.service, each.reason, each.message) for each in complaints(services, NETWORKS, (30000, 32767))]


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ([], []),
        ([service("a", "10.96.0.1", ports=(30001,)), service("b", "10.96.0.2", "fd00::2", ports=(30002,))], []),
        ([service("a", "None")], []),
        # Ports of several protocols of one service may be the same.
        ([service("a", "10.96.0.1", ports=(30001, 30001))], []),
        (
            [service("a", "odd")],
            [("d/a", "ClusterIPNotValid", "Cluster IP odd is not a valid IP; please recreate Service")],
        ),
        (
            [service("a", "10.1.0.1")],
            [
                (
                    "d/a",
                    "ClusterIPOutOfRange",
                    "Cluster IP [IPv4]: 10.1.0.1 is not within any configured Service CIDR; please recreate service",
                )
            ],
        ),
        # The oldest has it.
        (
            [service("a", "fd00::1", created=9), service("b", "fd00::1", created=5)],
            [
                (
                    "d/a",
                    "ClusterIPAlreadyAllocated",
                    "Cluster IP [IPv6]:fd00::1 was assigned to multiple services; please recreate service",
                )
            ],
        ),
        (
            [service("a", "10.96.0.1", ports=(80,))],
            [
                (
                    "d/a",
                    "PortOutOfRange",
                    "Port 80 is not within the port range 30000-32767; please recreate service",
                )
            ],
        ),
        (
            [service("a", "10.96.0.1", ports=(30001,)), service("b", "10.96.0.2", health=30001, created=1)],
            [("d/b", "PortAlreadyAllocated", "Port 30001 was assigned to multiple services; please recreate service")],
        ),
    ],
)
def test_complaints(services, expected):
    assert found(*services) == expected


class TestAddressObjects:
    A, B = service("a", "10.96.0.1"), service("b", "10.96.0.1")

    def test_one_that_names_a_holder_is_right(self):
        made = ip_address("10.96.0.1", self.A)
        assert is_right(made, [self.A])
        assert is_right(made, [self.B, self.A])
        del made["spec"]["parentRef"]["group"]
        assert is_right(made, [self.A])

    @pytest.mark.parametrize(
        "change",
        [
            lambda made: made["spec"]["parentRef"].update(name="other"),
            lambda made: made["spec"]["parentRef"].update(group="x.dev", resource="gateways"),
            lambda made: made["metadata"]["labels"].clear(),
        ],
    )
    def test_any_other_is_wrong(self, change):
        made = ip_address("10.96.0.1", self.A)
        change(made)
        assert not is_right(made, [self.A])

    def test_those_of_others_are_told_by_their_label(self):
        assert not is_foreign(ip_address("10.96.0.1", self.A))
        assert is_foreign({"metadata": {"name": "10.96.0.1"}})


@asynchronous
async def test_complaints_are_told_once(
    admin: Client, world: World, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await admin.create(SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}, namespace)
    monkeypatch.setattr(world.server.services, "ranges", lambda: [ip_network("10.1.0.0/16")])
    repair = ServiceRepair(world.server)
    await repair.look()
    await repair.look()
    told = [each for each in (await admin.list(EVENTS, namespace))["items"] if each["reason"] == "ClusterIPOutOfRange"]
    assert [each["involvedObject"]["name"] for each in told] == ["s"]
    assert made["spec"]["clusterIP"] in told[0]["message"]
    assert told[0]["source"] == {"component": "ipallocator-repair-controller"}


@asynchronous
async def test_what_was_reserved_in_vain_is_given_back(world: World) -> None:
    means = world.server.services
    address, port = means.addresses.allocate("10.96.3.3"), means.ports.allocate(31234)
    repair = ServiceRepair(world.server)
    for _ in range(3):
        await repair.look()
    assert address in means.addresses.taken()
    assert port in means.ports.taken()
    await repair.look()
    assert address not in means.addresses.taken()
    assert port not in means.ports.taken()
