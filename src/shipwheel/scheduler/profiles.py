"""From a configuration to profiles that can be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.scheduler import configuration, policy
from shipwheel.scheduler.config import SchedulerConfig
from shipwheel.scheduler.configuration import Configuration, ProfileConfig
from shipwheel.scheduler.events import Interest
from shipwheel.scheduler.framework import Handle, Profile
from shipwheel.scheduler.registry import factories, points_of


def configured(config: SchedulerConfig) -> Configuration:
    """What the files that flags name say, or the default. ConfigurationError, OSError."""
    if config.config:
        return configuration.load(config.config, known_points())
    if config.policy_config_file:
        return policy.load(config.policy_config_file, config.scheduler_name)
    return Configuration(profiles=(ProfileConfig(scheduler_name=config.scheduler_name),))


def known_points() -> dict[str, set[str]]:
    """Every plugin there is, with its extension points."""
    return {name: points_of(factory) for name, factory in factories().items()}


def build(profile: ProfileConfig, handle: Handle, *, ignored: Sequence[str] = ()) -> Profile:
    """A profile with its plugins made. `ignored` are resources that extenders look after alone."""
    points = configuration.resolve(profile, known_points())
    made: dict[str, Any] = {}

    def plugin(name: str) -> Any:
        if name not in made:
            args = profile.args.get(name) or {}
            if name == "NodeResourcesFit" and ignored:
                args = {**args, "ignoredResources": [*(args.get("ignoredResources") or ()), *ignored]}
            made[name] = factories()[name](args, handle)
        return made[name]

    plugins = {point: [plugin(name) for name, _ in chosen] for point, chosen in points.items()}
    return Profile(profile.scheduler_name, plugins, dict(points.get("score", ())), handle)


def interests(profiles: Mapping[str, Profile]) -> dict[str, dict[str, Sequence[Interest]]]:
    """By scheduler name and plugin, the events that may undo a refusal."""
    return {name: {plugin.name: plugin.events for plugin in profile.instances} for name, profile in profiles.items()}


def gate(profiles: Mapping[str, Profile], pod: Obj) -> tuple[str, str]:
    """The plugin that says that a pod must not be tried yet, and why; both empty when it may."""
    profile = profiles[pod["spec"].get("schedulerName", configuration.DEFAULT_NAME)]
    for plugin in profile.at("preEnqueue"):
        if reason := plugin.pre_enqueue(pod):
            return plugin.name, reason
    return "", ""
