"""The flags of the scheduler and the controller manager: each does what it says, or is refused by its name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from shipwheel.client.flags import VersionRequested, parse
from shipwheel.controllers import config as controllers
from shipwheel.scheduler import config as scheduler
from shipwheel.scheduler import configuration, policy
from shipwheel.scheduler.config import SchedulerConfig
from shipwheel.scheduler.configuration import Configuration, ExtenderConfig, PluginSet, ProfileConfig
from shipwheel.scheduler.export import to_object
from shipwheel.scheduler.profiles import configured, known_points
from shipwheel.scheduler.scheduler import write_config

BOTH = pytest.mark.parametrize("module", [scheduler, controllers], ids=["scheduler", "controllers"])


def read(module: Any, *arguments: str) -> Any:
    return module.from_flags(parse(module.FLAGS, arguments).values)


@BOTH
@pytest.mark.parametrize(
    "argument",
    [
        "--profiling",
        "--contention-profiling",
        "--kube-api-content-type=application/vnd.kubernetes.protobuf",
        "--leader-elect-resource-lock=endpoints",
        "--tls-sni-cert-key=a,b",
        "--tls-curve-preferences=29",
        "--emulated-version=1.34",
        "--allow-metric-labels-manifest=file",
        "--show-hidden-metrics-for-version=1.20",
        "--log-json-split-stream",
        "--unsupported-kube-api-over-localhost",
    ],
)
def test_what_cannot_be_had_is_refused_by_its_name(module: Any, argument: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument.partition('=')[0]}: Unsupported value: "):
        read(module, argument)


@BOTH
@pytest.mark.parametrize(
    "argument",
    [
        "--profiling=false",
        "--emulated-version=kube=1.36",
        "--show-hidden-metrics-for-version=1.35",
        "--leader-elect-resource-lock=leases",
        "--feature-gates=kube:SchedulerQueueingHints=true,GangScheduling=false",
    ],
)
def test_what_is_so_anyway_may_be_asked_for(module: Any, argument: str) -> None:
    read(module, argument)


@BOTH
def test_feature_gates_that_cannot_be_switched(module: Any) -> None:
    with pytest.raises(ValueError, match="cannot set feature gate GangScheduling to true"):
        read(module, "--feature-gates=GangScheduling=true")
    with pytest.raises(ValueError, match="unrecognized feature gate: Nope"):
        read(module, "--feature-gates=Nope=true")


@BOTH
def test_what_has_no_effect_is_told(module: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(module, "--disable-http2-serving")
    assert caplog.messages == ["--disable-http2-serving has no effect: HTTP/2 is never served"]


@BOTH
def test_serving(module: Any) -> None:
    serving = read(
        module,
        "--secure-port=4",
        "--tls-min-version=VersionTLS13",
        "--authentication-kubeconfig=who",
        "--requestheader-allowed-names=a,b",
        "--authorization-webhook-cache-unauthorized-ttl=3s",
        "--disabled-metrics=x",
    ).serving
    assert (serving.port, serving.tls_min_version, serving.authentication_kubeconfig) == (4, "VersionTLS13", "who")
    assert (serving.front_proxy.allowed_names, serving.unauthorized_seconds) == (("a", "b"), 3.0)


@BOTH
@pytest.mark.parametrize(("argument", "said"), [("--version", "Kubernetes v1.36."), ("--version=raw", "version.Info{")])
def test_version(module: Any, argument: str, said: str) -> None:
    with pytest.raises(VersionRequested) as told:
        read(module, argument)
    assert str(told.value).startswith(said)


def test_the_cloud_is_somebody_elses() -> None:
    read(controllers, "--cloud-provider=external")
    with pytest.raises(ValueError, match=r"^--cloud-provider: Unsupported value: 'aws'"):
        read(controllers, "--cloud-provider=aws")


POLICY = {
    "kind": "Policy",
    "apiVersion": "v1",
    "predicates": [{"name": "PodFitsResources"}, {"name": "MatchNodeSelector"}],
    "priorities": [{"name": "MostRequestedPriority", "weight": 7}],
}
WRITTEN = Configuration(
    initial_backoff=2.0,
    max_backoff=30.0,
    profiles=(
        ProfileConfig(),
        ProfileConfig(
            scheduler_name="second",
            plugins={
                "score": PluginSet((("ImageLocality", 5),), frozenset(("NodeAffinity",))),
                "multiPoint": PluginSet((), frozenset(("NodePorts",))),
            },
            args={"InterPodAffinity": {"hardPodAffinityWeight": 7}},
        ),
    ),
    extenders=(
        ExtenderConfig(
            url_prefix="https://extender",
            filter_verb="filter",
            weight=3,
            ignorable=True,
            timeout=2.5,
            managed_resources=(("example.com/foo", True),),
            tls={"insecure": True},
        ),
    ),
)


@pytest.mark.parametrize("which", ["default", "all", "policy"])
def test_a_configuration_that_was_written_comes_to_the_same(which: str) -> None:
    known = known_points()
    meant = {
        "default": configured(SchedulerConfig()),
        "all": WRITTEN,
        "policy": policy.parse(POLICY, "default-scheduler"),
    }[which]
    flags = SchedulerConfig(kube_api_qps=70.0, leader_elect_lease_duration=20.0, kubeconfig="k")
    again = configuration.parse(yaml.safe_load(yaml.safe_dump(to_object(flags, meant, known))), known)
    assert (again.initial_backoff, again.max_backoff, again.extenders) == (
        meant.initial_backoff,
        meant.max_backoff,
        meant.extenders,
    )
    assert [each.scheduler_name for each in again.profiles] == [each.scheduler_name for each in meant.profiles]
    for mine, theirs in zip(again.profiles, meant.profiles, strict=True):
        assert configuration.resolve(mine, known) == configuration.resolve(theirs, known)
        assert mine.args == theirs.args
    assert (again.flags["kube_api_qps"], again.flags["leader_elect_lease_duration"]) == (70.0, 20.0)


def test_the_file_is_written(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    write_config(read(scheduler, f"--write-config-to={file}", "--kube-api-burst=7"))
    config = read(scheduler, f"--config={file}")
    assert config.kube_api_burst == 7
    configured(config)
