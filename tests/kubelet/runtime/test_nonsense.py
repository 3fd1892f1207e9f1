"""A runtime may answer anything that its messages can say: it is taken as something, or refused, but never more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipwheel.api.protobuf import Enum, Field, Message, encode
from shipwheel.client.grpc.channel import _decoded
from shipwheel.kubelet.observed import observe_container, observe_pod
from shipwheel.kubelet.runtime.base import Container, RuntimeFault
from shipwheel.kubelet.runtime.cri import CriRuntime
from shipwheel.kubelet.runtime.cri_tables import messages

_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.sampled_from(["", "x", "NOT_A_THING", "🙂", "{", "999.1.1.1"]),
    "bytes": st.binary(max_size=4),
    "bool": st.booleans(),
    "double": st.just(0.5),
}


def anything(message: Message, depth: int = 6) -> st.SearchStrategy[dict[str, Any]]:
    """What a message can say, and often leaves out."""
    fields = {each.name: _value(each, depth) for each in message.fields if depth or not isinstance(each.type, Message)}
    return st.fixed_dictionaries({}, optional=fields)


def _value(field: Field, depth: int) -> st.SearchStrategy[Any]:
    match field.type:
        case Message() as message:
            one: st.SearchStrategy[Any] = anything(message, depth - 1)
        case Enum() as known:
            one = st.sampled_from([*known.numbers, 4711])
        case str() as scalar if scalar in _SCALARS:
            one = _SCALARS[scalar]
        case str() as scalar if scalar.startswith("u"):
            one = st.sampled_from([0, 1, 2**32 - 1])
        case _:
            one = st.sampled_from([0, 1, -1, 2**31 - 1])
    match field.shape:
        case "many":
            return st.lists(one, max_size=2)
        case "map":
            return st.dictionaries(_SCALARS["string"], one, max_size=2)
        case _:
            return one


Ask = Callable[[CriRuntime], Awaitable[Any]]
QUESTIONS: dict[str, Ask] = {
    "Version": lambda runtime: runtime.info(),
    "Status": lambda runtime: runtime.status(),
    "ListPodSandbox": lambda runtime: runtime.sandboxes(),
    "PodSandboxStatus": lambda runtime: runtime.sandbox_status("s"),
    "ListContainers": lambda runtime: runtime.containers(),
    "ContainerStatus": lambda runtime: runtime.container_status("c"),
    "ListContainerStats": lambda runtime: runtime.usage(),
    "ExecSync": lambda runtime: runtime.exec_sync("c", ["true"], 1),
    "Exec": lambda runtime: runtime.exec_url("c", ["true"], stdin=False, stdout=True, stderr=False, tty=False),
    "PullImage": lambda runtime: runtime.pull_image("image", None, None),
    "ListImages": lambda runtime: runtime.images(),
    "ImageStatus": lambda runtime: runtime.image_status("image"),
    "ImageFsInfo": lambda runtime: runtime.image_filesystems(),
}


LISTED = {"ListPodSandbox": ("items", "PodSandbox"), "ListContainers": ("containers", "Container")}
"""Lists whose tables leave their items encoded: (field, message)."""


def _sayable(item: str) -> st.SearchStrategy[dict[str, Any]]:
    """What has a wire form."""

    def has_one(said: dict[str, Any]) -> bool:
        try:
            encode(messages()[item], said)
        except (ValueError, OverflowError):
            return False
        return True

    return anything(messages()[item]).filter(has_one)


class Answering:
    """A channel to somebody who says the same thing to everything."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    async def call(self, method: str, request: Message, response: Message, fields: Any, *, timeout: Any) -> Any:
        return _decoded(method, response, self.raw)


async def ask(question: Ask, raw: bytes) -> Any:
    """The answer; None when it was refused."""
    runtime = CriRuntime("unix:///nowhere")
    runtime._runtime = runtime._images = Answering(raw)  # type: ignore[assignment]
    try:
        return await question(runtime)
    except RuntimeFault:
        return None


@pytest.mark.parametrize("method", QUESTIONS)
@settings(max_examples=40)
@given(data=st.data())
async def test_what_a_message_can_say(method: str, data: st.DataObject) -> None:
    response = messages()[f"{method}Response"]
    said = data.draw(anything(response))
    if method in LISTED:
        field, item = LISTED[method]
        said = {field: [encode(messages()[item], each) for each in data.draw(st.lists(_sayable(item), max_size=2))]}
    try:
        raw = encode(response, said)
    except (ValueError, OverflowError):
        return
    answer = await ask(QUESTIONS[method], raw)
    listed = answer if isinstance(answer, list) else [answer]
    for each in (each for each in listed if isinstance(each, Container)):
        assert each.state in ("CREATED", "RUNNING", "EXITED", "UNKNOWN")
        observe_pod("uid", [], [observe_container(each)])


@pytest.mark.parametrize("method", QUESTIONS)
@settings(max_examples=30)
@given(raw=st.binary(max_size=40))
async def test_noise(method: str, raw: bytes) -> None:
    await ask(QUESTIONS[method], raw)
