"""CDI devices where the runtime does not know them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shipwheel.kubelet.runtime.base import ContainerConfig, Device, Mount
from shipwheel.kubelet.runtime.cdi import CdiFault, injected, knows_devices

SPEC = {
    "cdiVersion": "0.3.0",
    "kind": "example.com/gpu",
    "containerEdits": {"env": ["ALL=1"]},
    "devices": [
        {
            "name": "a",
            "containerEdits": {
                "env": ["GPU=a=b"],
                "deviceNodes": [{"path": "/dev/gpu", "hostPath": "/dev/null", "permissions": "rw"}, {"path": "/dev/b"}],
                "mounts": [{"hostPath": "/lib/gpu", "containerPath": "/lib/x", "options": ["ro", "bind"]}],
            },
        },
        {"name": "hooked", "containerEdits": {"hooks": [{"path": "/bin/hook"}]}},
    ],
}


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    for name in ("etc", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "etc/gpu.json").write_text(json.dumps(SPEC))
    (tmp_path / "etc/garbage.json").write_text("{")
    (tmp_path / "etc/other.txt").write_text("x")
    return [tmp_path / "etc", tmp_path / "run", tmp_path / "none"]


def config(*devices: str) -> ContainerConfig:
    return ContainerConfig("c", "i", env=[("HOME", "/")], cdi_devices=devices)


def test_what_a_device_needs(places: list[Path]) -> None:
    assert injected(config("example.com/gpu=a"), places) == ContainerConfig(
        "c",
        "i",
        env=(("HOME", "/"), ("ALL", "1"), ("GPU", "a=b")),
        devices=(Device("/dev/gpu", "/dev/null", "rw"), Device("/dev/b", "/dev/b", "rwm")),
        mounts=(Mount("/lib/x", "/lib/gpu", readonly=True),),
    )


def test_later_directories_prevail(places: list[Path]) -> None:
    other = "kind: example.com/gpu\ndevices: [{name: a, containerEdits: {env: [GPU=new]}}]\n"
    (places[1] / "gpu.yaml").write_text(other)
    assert injected(config("example.com/gpu=a"), places).env == (("HOME", "/"), ("GPU", "new"))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("example.com/gpu=z", "failed to inject CDI devices: unresolvable CDI devices example.com/gpu=z"),
        ("example.com/gpu=hooked", "failed to inject CDI devices: this runtime cannot be told of hooks"),
    ],
)
def test_what_cannot_be_had(places: list[Path], device: str, message: str) -> None:
    with pytest.raises(CdiFault) as fault:
        injected(config(device), places)
    assert str(fault.value) == message


@pytest.mark.parametrize(
    ("name", "version", "known"),
    [
        ("containerd", "1.6.20~ds1", False),
        ("containerd", "v1.7.0", True),
        ("containerd", "2.1.0", True),
        ("cri-o", "1.2", True),
    ],
)
def test_who_knows_them(name: str, version: str, known: bool) -> None:
    assert knows_devices(name, version) is known
