"""Pod presets: what pods that a selector takes in get besides their own, as it was until release 1.20."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, required
from shipwheel.api.meta import Obj
from shipwheel.api.objectmeta import validate_label_selector
from shipwheel.api.resource import Resource, Strategy
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.columns import AGE, NAME
from shipwheel.kinds.core.env import check_env, check_env_from
from shipwheel.kinds.core.volumes import check_volumes, default_volumes
from shipwheel.kinds.declare import older


class PodPresetStrategy(Strategy):
    tracks_generation = False

    def default(self, preset: Obj) -> None:
        default_volumes((preset.get("spec") or {}).get("volumes") or [])

    def validate(self, preset: Obj) -> list[FieldError]:
        spec = preset.get("spec") or {}
        errors: Errors = validate_label_selector(spec.get("selector"), "spec.selector")
        if not any(spec.get(field) for field in ("volumes", "env", "envFrom", "volumeMounts")):
            detail = "must specify at least one"
            errors.append(required("spec.volumes, env, envFrom, volumeMounts", detail))
        check_volumes(spec.get("volumes") or [], "spec.volumes", errors, is_pod=False)
        check_env(spec.get("env") or [], "spec.env", errors)
        check_env_from(spec.get("envFrom") or [], "spec.envFrom", errors)
        for index, mount in enumerate(spec.get("volumeMounts") or ()):
            for field in ("name", "mountPath"):
                if not mount.get(field):
                    errors.append(required(f"spec.volumeMounts[{index}].{field}"))
        return errors


RESOURCES = (
    Resource(
        kind="PodPreset",
        plural="podpresets",
        singular="podpreset",
        versions=(older("settings.k8s.io", "v1alpha1", "PodPreset", since="1.19", until="1.20"),),
        strategy=PodPresetStrategy(),
        columns=(NAME, AGE),
    ),
)
