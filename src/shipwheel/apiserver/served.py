"""Which of the built-in kinds and versions a server serves: all, but for what its flags turn off.

`--serve-removed-api-versions=false` turns off what upstream's release no longer has. `--runtime-config` is upstream's:
`api/all`, `api/ga`, `api/beta`, `api/alpha`, and above these `group/version` and `group/version/resource`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from shipwheel.api.resource import Resource, Version
from shipwheel.client.flags import FlagError
from shipwheel.kinds import builtin_resources

_STAGES = ("api/all", "api/ga", "api/beta", "api/alpha")


def served_resources(*, removed: bool, runtime_config: Mapping[str, str]) -> list[Resource]:
    """The kinds, each with the versions that are served. A kind whose storage version is turned off goes as a whole.
    FlagError for a setting that names nothing."""
    resources = builtin_resources(older=removed)
    settings = {key: _switch(key, value) for key, value in runtime_config.items()}
    unknown = settings.keys() - set(_STAGES) - {key for each in resources for key in _keys(each)}
    if unknown:
        raise FlagError(f"unknown api groups {','.join(sorted(unknown))}")
    if not settings:
        return resources
    found = []
    for resource in resources:
        versions = tuple(each for each in resource.versions if _is_on(resource, each, settings))
        if resource.storage in versions:
            found.append(replace(resource, versions=versions))
    return found


def _switch(key: str, value: str) -> bool:
    if value not in ("", "true", "false"):
        raise FlagError(f"invalid value {key}={value}")
    return value != "false"


def _keys(resource: Resource) -> list[str]:
    """By which names a kind's versions can be turned on and off, beside those of a stage."""
    return [key for version in resource.versions for key in _names(resource, version)]


def _names(resource: Resource, version: Version) -> tuple[str, str]:
    return version.api_version, f"{version.api_version}/{resource.plural}"


def _is_on(resource: Resource, version: Version, settings: Mapping[str, bool]) -> bool:
    """What is most particular counts."""
    stage = "alpha" if "alpha" in version.version else "beta" if "beta" in version.version else "ga"
    on = True
    for key in ("api/all", f"api/{stage}", *_names(resource, version)):
        on = settings.get(key, on)
    return on
