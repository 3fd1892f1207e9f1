"""The kernel settings that a kubelet counts on."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipwheel.kubelet import kernel_defaults
from shipwheel.kubelet.config import ConfigError
from shipwheel.kubelet.kubelet import prepare_process
from shipwheel.kubelet.settings import KubeletConfig


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    for name, value in kernel_defaults.EXPECTED.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    return tmp_path


def test_what_differs(settings: Path) -> None:
    assert kernel_defaults.faults(settings) == []
    (settings / "kernel/panic").write_text("0\n")
    assert kernel_defaults.faults(settings) == [
        "invalid kernel flag: kernel/panic, expected value: 10, actual value: 0"
    ]
    (settings / "vm/panic_on_oom").unlink()
    assert len(kernel_defaults.faults(settings)) == 2


def test_a_kubelet_that_is_to_protect_them_does_not_start_where_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_defaults, "faults", lambda: ["one", "two"])
    with pytest.raises(ConfigError, match=r"Failed to start ContainerManager: \[one, two\]"):
        prepare_process(KubeletConfig(fail_cgroup_v1=False, protect_kernel_defaults=True))
