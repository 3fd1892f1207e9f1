"""CDI devices for containerd before 1.7, which does not know them.

Vendors describe their devices in files (Container Device Interface): what a container needs to use one. Newer runtimes
are told only the devices' names; for older ones the descriptions are read here and become environment, device nodes and
mounts of the container. What CRI has no words for (hooks) is refused.

https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shipwheel.kubelet.runtime.base import ContainerConfig, Device, Mount

DIRECTORIES = (Path("/etc/cdi"), Path("/var/run/cdi"))
"""Later ones prevail."""
_EXPRESSIBLE = {"env", "deviceNodes", "mounts"}

Edits = Mapping[str, Any]


class CdiFault(Exception):
    """A device cannot be had; the message is containerd's."""


def knows_devices(name: str, version: str) -> bool:
    """Whether a runtime takes the names of CDI devices."""
    if name != "containerd":
        return True
    numbers = version.lstrip("v").replace("-", ".").replace("~", ".").split(".")[:2]
    return [int(part) for part in numbers if part.isdigit()] >= [1, 7]


def injected(config: ContainerConfig, directories: Iterable[Path] = DIRECTORIES) -> ContainerConfig:
    """The container with what its CDI devices need in place of their names. CdiFault."""
    known = read_specs(directories)
    missing = [each for each in config.cdi_devices if each not in known]
    if missing:
        raise CdiFault(f"failed to inject CDI devices: unresolvable CDI devices {', '.join(missing)}")
    edits: list[Edits] = []
    for name in config.cdi_devices:
        edits += [each for each in known[name] if each not in edits]
    for each in edits:
        beyond = sorted(key for key, value in each.items() if value and key not in _EXPRESSIBLE)
        if beyond:
            raise CdiFault(f"failed to inject CDI devices: this runtime cannot be told of {', '.join(beyond)}")
    env = [tuple(line.partition("=")[::2]) for each in edits for line in each.get("env") or ()]
    return replace(
        config,
        cdi_devices=(),
        env=(*config.env, *((key, value) for key, value in env)),
        devices=(*config.devices, *(_device(node) for each in edits for node in each.get("deviceNodes") or ())),
        mounts=(*config.mounts, *(_mount(found) for each in edits for found in each.get("mounts") or ())),
    )


def read_specs(directories: Iterable[Path]) -> dict[str, list[Edits]]:
    """What each device needs, by its qualified name; files that make no sense are passed over, as by containerd."""
    found: dict[str, list[Edits]] = {}
    for directory in directories:
        for file in sorted(directory.glob("*")) if directory.is_dir() else ():
            spec = _read(file)
            for device in spec.get("devices") or ():
                edits = [spec.get("containerEdits") or {}, device.get("containerEdits") or {}]
                found[f"{spec.get('kind')}={device.get('name')}"] = [each for each in edits if each]
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.suffix == ".json":
            spec = json.loads(file.read_text())
        elif file.suffix in (".yaml", ".yml"):
            import yaml

            spec = yaml.safe_load(file.read_text())
        else:
            return {}
    except (OSError, ValueError):
        return {}
    return spec if isinstance(spec, dict) else {}


def _device(node: Edits) -> Device:
    return Device(node["path"], node.get("hostPath") or node["path"], node.get("permissions") or "rwm")


def _mount(found: Edits) -> Mount:
    options: Sequence[str] = found.get("options") or ()
    return Mount(found["containerPath"], found["hostPath"], readonly="ro" in options)
