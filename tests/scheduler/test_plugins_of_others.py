"""Plugins that others write: found by entry point, named in a profile, with arguments."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shipwheel.scheduler import configuration, profiles, registry
from shipwheel.scheduler.framework import Diagnosis, Refusal

from .build import SHAPES, handle_of
from .model import World
from .test_loop import node, pod


class NotHere:
    """Refuses the node that its arguments name."""

    name = "NotHere"
    events = ()

    def __init__(self, args: dict[str, Any], handle: Any) -> None:
        self._node = args["node"]

    def filter(self, cycle: Any) -> Any:
        mask = np.zeros(cycle.table.size, np.bool_)
        mask[cycle.table.rows[self._node]] = True
        yield Refusal(mask[cycle.rows], "node(s) were not liked")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Any:
    entry = SimpleNamespace(name="NotHere", load=lambda: NotHere)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == "shipwheel.scheduler" else [])
    registry.factories.cache_clear()
    yield
    registry.factories.cache_clear()


def test_a_published_plugin_has_its_say(published: None) -> None:
    content = {
        "apiVersion": configuration.API_VERSION,
        "kind": "KubeSchedulerConfiguration",
        "profiles": [
            {
                "plugins": {"filter": {"enabled": [{"name": "NotHere"}]}},
                "pluginConfig": [{"name": "NotHere", "args": {"node": "one"}}],
            }
        ],
    }
    config = configuration.parse(content, profiles.known_points())
    handle = handle_of(World([node("one"), node("two")], []))
    profile = profiles.build(config.profiles[0], handle)
    wanted = pod("a")
    diagnosis = Diagnosis(2)
    feasible = profile.feasible(profile.cycle(wanted, SHAPES.of(wanted)), diagnosis)
    assert [handle.table.name(row) for row in feasible.nonzero()[0].tolist()] == ["two"]
    assert "1 node(s) were not liked" in diagnosis.message()
