"""What is measured of admission, watches, and requests that come to nothing, under upstream's names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shipwheel.api.errors import ApiError
from shipwheel.client.client import Client
from shipwheel.client.resources import CONFIG_MAPS, NAMESPACES
from tests.apiserver.wire import until, wire
from tests.apiserver.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


def value(world: World, name: str, /, **labels: str) -> float:
    """The sum of the samples that have (at least) these labels."""
    text = world.server.metrics.exposition().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"apiserver_{name}" and labels.items() <= sample.labels.items()
    )


async def test_admission(world: World, admin: Client, namespace: str) -> None:
    by_plugin = "admission_controller_admission_duration_seconds_count"
    by_phase = "admission_step_admission_duration_seconds_count"
    plugin = {"name": "NamespaceLifecycle", "operation": "CREATE"}
    passed, refused = {"operation": "CREATE", "rejected": "false"}, {"operation": "CREATE", "rejected": "true"}
    admitted = value(world, by_phase, type="admit", **passed)
    before = [value(world, by_phase, **refused), value(world, by_plugin, rejected="true", **plugin)]
    await admin.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, namespace)
    assert value(world, by_phase, type="admit", **passed) == admitted + 1
    with pytest.raises(ApiError):
        await admin.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, "nowhere")
    after = [value(world, by_phase, **refused), value(world, by_plugin, rejected="true", **plugin)]
    assert after == [each + 1 for each in before]
    assert value(world, by_plugin, rejected="false", **plugin) > 0
    assert value(world, by_phase, type="validate", **passed) > 0


async def test_watches(world: World, admin: Client, tmp_path: Path, namespace: str) -> None:
    kind = {"group": "", "resource": "configmaps"}
    for name in ("a", "b"):
        await admin.create(CONFIG_MAPS, {"metadata": {"name": name}}, namespace)
    cache = world.server.cache.caches["configmaps"]
    names = ("init_events_total", "watch_cache_events_received_total", "watch_cache_events_dispatched_total")
    before = [value(world, name, **kind) for name in names]
    sent = value(world, "watch_events_total", version="v1", **kind)
    async with wire(world, tmp_path) as watch:
        await watch.send(f"GET {CONFIG_MAPS.path(namespace)}?watch=1 HTTP/1.1")
        assert (await watch.head())[0] == 200
        await until(lambda: cache.watchers)
        await admin.delete(CONFIG_MAPS, "b", namespace)
        await until(lambda: value(world, "watch_events_total", version="v1", **kind) == sent + 3)
    assert [value(world, name, **kind) for name in names] == [before[0] + 2, before[1] + 1, before[2] + 1]
    assert value(world, "watch_events_sizes_count", version="v1", **kind) == sent + 3
    assert value(world, "watch_events_sizes_sum", version="v1", **kind) > 300
    assert value(world, "watch_cache_initializations_total", **kind) == 1
    assert value(world, "resource_size_estimate_bytes", **kind) == sum(len(each.tail) for each in cache.within(""))


async def test_requests_that_come_to_nothing(world: World, admin: Client, tmp_path: Path, namespace: str) -> None:
    kind = {"resource": "configmaps", "scope": "namespace"}
    terminated = value(world, "request_terminations_total", verb="POST", code="504", component="apiserver", **kind)
    aborted = value(world, "request_aborts_total", verb="LIST", **kind)
    path = CONFIG_MAPS.path(namespace)
    async with wire(world, tmp_path) as peer:
        await peer.send(f"POST {path}?timeout=50ms HTTP/1.1", "Content-Length: 1000", body=b'{"metadata":')
        assert (await peer.head())[0] == 504
    assert value(world, "request_terminations_total", verb="POST", code="504", **kind) == terminated + 1
    for number in range(20):
        await admin.create(CONFIG_MAPS, {"metadata": {"name": f"c{number}"}, "data": {"x": "x" * 1_000_000}}, namespace)
    async with wire(world, tmp_path) as slow:
        await slow.send(f"GET {path}?timeout=100ms HTTP/1.1")
        assert (await slow.head())[0] == 200
        await until(lambda: value(world, "request_aborts_total", verb="LIST", **kind) == aborted + 1)


async def test_handshakes_that_fail(world: World, admin: Client) -> None:
    before = value(world, "tls_handshake_errors_total")
    await admin.get(NAMESPACES, "default")
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await reader.read()
    writer.close()
    await until(lambda: value(world, "tls_handshake_errors_total") == before + 1)
