"""Static pods from a URL: asked for every so often, with headers, whatever the server does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shipwheel.client.httpserver import HttpServer, Request, Response
from tests.kubelet.world import World, world

POD = (
    "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: ns}}, "
    "spec: {{containers: [{{name: a, image: i}}]}}}}"
)


class Manifests:
    """A server that says what a test wants."""

    def __init__(self) -> None:
        self.status = 200
        self.text = POD.format(name="one")
        self.headers: list[tuple[str, ...]] = []

    async def handle(self, request: Request) -> Response:
        self.headers.append((request.header("authorization"), request.header("x-node")))
        return Response(self.status, self.text.encode(), content_type="text/plain")


class Node:
    def __init__(self, made: World, manifests: Manifests) -> None:
        self.made = made
        self.manifests = manifests

    async def asked_again(self) -> None:
        """Return when the server was asked after now, and the answer taken."""
        before = len(self.manifests.headers)
        await self.made.until(lambda: len(self.manifests.headers) > before)
        await self.made.clock.advance(1)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    manifests = Manifests()
    server = HttpServer(manifests.handle)
    port = await server.listen("127.0.0.1", 0)
    async with world(tmp_path, start=False) as made:
        made.start(
            static_pod_url=f"http://127.0.0.1:{port}/pods",
            static_pod_url_header={"Authorization": ["Bearer x"], "X-Node": "node1"},
        )
        await made.until(lambda: made.phase("one-node1") == "Running")
        yield Node(made, manifests)
    await server.close()


async def test_headers_and_how_often(node: Node) -> None:
    assert node.manifests.headers[0] == ("Bearer x", "node1")
    began, count = node.made.clock.monotonic(), len(node.manifests.headers)
    while len(node.manifests.headers) < count + 3:
        await node.asked_again()
    # The clock runs on while an answer is under way.
    assert node.made.clock.monotonic() - began >= 40


async def test_a_list_and_what_is_taken_off_it(node: Node) -> None:
    pods = ", ".join(POD.format(name=name) for name in ("one", "two"))
    node.manifests.text = f"{{apiVersion: v1, kind: PodList, items: [{pods}]}}"
    await node.made.until(lambda: node.made.phase("two-node1") == "Running")
    node.manifests.text = POD.format(name="two")
    await node.made.until(lambda: node.made.phase("one-node1") == "gone")
    assert node.made.phase("two-node1") == "Running"


@pytest.mark.parametrize(("status", "text"), [(500, "no"), (404, ""), (200, ":{["), (200, "kind: Service")])
async def test_what_a_server_says_by_mistake_ends_no_pod(node: Node, status: int, text: str) -> None:
    node.manifests.status, node.manifests.text = status, text
    await node.asked_again()
    await node.asked_again()
    assert node.made.phase("one-node1") == "Running"
    assert len(await node.made.running()) == 1


async def test_a_server_with_nothing_has_no_pods(node: Node) -> None:
    node.manifests.text = ""
    await node.made.until(lambda: node.made.phase("one-node1") == "gone")
