"""Versions turned on and off, and objects that go away by themselves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from shipwheel.apiserver.served import served_resources
from shipwheel.client.flags import FlagError
from tests.apiserver.world import Asker, config_for, running


def versions(*, removed: bool = True, **settings: str) -> set[str]:
    config = {key.replace("__", "/"): value for key, value in settings.items()}
    return {
        f"{version.api_version}/{resource.plural}"
        for resource in served_resources(removed=removed, runtime_config=config)
        for version in resource.versions
    }


def test_everything_by_default() -> None:
    assert {"apps/v1/deployments", "extensions/v1beta1/deployments", "policy/v1beta1/podsecuritypolicies"} <= versions()


def test_without_what_upstream_has_removed() -> None:
    today = versions(removed=False)
    assert {"apps/v1/deployments", "v1/pods"} <= today
    assert not [each for each in today if "beta" in each or "alpha" in each]


def test_the_particular_counts_more_than_the_general() -> None:
    found = versions(**{"api/beta": "false", "apps/v1beta2": "true", "apps/v1beta2/daemonsets": "false"})
    assert {each for each in found if "beta" in each} == {
        f"apps/v1beta2/{each}" for each in ("controllerrevisions", "deployments", "replicasets", "statefulsets")
    }
    assert "batch/v1/jobs" not in versions(**{"batch/v1": "false"})


@pytest.mark.parametrize("setting", [{"apps/v9": "true"}, {"apps/v1": "perhaps"}])
def test_settings_that_make_no_sense(setting: dict[str, str]) -> None:
    with pytest.raises(FlagError):
        versions(**setting)


async def test_a_server_of_today_whose_events_are_soon_gone(keys: Path, tmp_path: Path) -> None:
    config = replace(
        config_for(keys, tmp_path / "db"), serve_removed_api_versions=False, event_ttl=1, allow_privileged=False
    )
    async with running(keys, tmp_path / "db", config=config) as world:
        ask = Asker(world.config("admin", "system:masters"))
        groups = orjson.loads((await ask("GET", "/apis")).body)["groups"]
        assert "extensions" not in [each["name"] for each in groups]
        assert (await ask("GET", "/apis/apps/v1beta1/deployments")).status == 404
        events = "/api/v1/namespaces/default/events"
        await nobody_may_be_privileged(ask)
        about = {"kind": "Namespace", "name": "default", "namespace": "default"}
        made = await ask("POST", events, {"metadata": {"name": "e"}, "involvedObject": about})
        assert made.status == 201, made.body
        async with asyncio.timeout(30):
            while (await ask("GET", f"{events}/e")).status != 404:
                await asyncio.sleep(0.1)
        await ask.close()


async def nobody_may_be_privileged(ask: Asker) -> None:
    container = {"name": "c", "image": "i", "securityContext": {"privileged": True}}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    answer = await ask(
        "POST", "/apis/apps/v1/namespaces/default/deployments", {"metadata": {"name": "d"}, "spec": spec}
    )
    assert orjson.loads(answer.body)["details"]["causes"] == [
        {
            "reason": "FieldValueForbidden",
            "message": "Forbidden: disallowed by cluster policy",
            "field": "spec.template.spec.containers[0].securityContext.privileged",
        }
    ]
