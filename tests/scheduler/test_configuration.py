"""KubeSchedulerConfiguration and Policy: what they come to, and that what is wrong is refused with its path."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shipwheel.client.flags import parse as parse_flags
from shipwheel.scheduler import configuration, policy
from shipwheel.scheduler.config import FLAGS, from_flags
from shipwheel.scheduler.configuration import Configuration, ConfigurationError, resolve
from shipwheel.scheduler.profiles import known_points

KNOWN = known_points()


def parse(**content: Any) -> Configuration:
    head = {"apiVersion": configuration.API_VERSION, "kind": "KubeSchedulerConfiguration"}
    return configuration.parse({**head, **content}, KNOWN)


def names(config: Configuration, point: str) -> list[str]:
    return [name for name, _ in resolve(config.profiles[0], KNOWN).get(point, [])]


def test_the_default_profile() -> None:
    config = parse()
    assert names(config, "filter") == [
        "NodeUnschedulable",
        "NodeName",
        "TaintToleration",
        "NodeAffinity",
        "NodePorts",
        "NodeResourcesFit",
        "VolumeRestrictions",
        "NodeVolumeLimits",
        "VolumeBinding",
        "VolumeZone",
        "PodTopologySpread",
        "InterPodAffinity",
        "DynamicResources",
        "NodeDeclaredFeatures",
    ]
    assert dict(resolve(config.profiles[0], KNOWN)["score"]) == {
        "TaintToleration": 3,
        "NodeAffinity": 2,
        "NodeResourcesFit": 1,
        "PodTopologySpread": 2,
        "InterPodAffinity": 2,
        "DynamicResources": 2,
        "NodeResourcesBalancedAllocation": 1,
        "ImageLocality": 1,
    }


def test_plugins_are_taken_out_and_weighed_by_extension_point() -> None:
    config = parse(
        profiles=[
            {
                "plugins": {
                    "score": {
                        "disabled": [{"name": "ImageLocality"}],
                        "enabled": [{"name": "NodeResourcesFit", "weight": 7}],
                    },
                    "multiPoint": {"disabled": [{"name": "InterPodAffinity"}]},
                }
            }
        ]
    )
    weights = dict(resolve(config.profiles[0], KNOWN)["score"])
    assert weights["NodeResourcesFit"] == 7
    assert not {"ImageLocality", "InterPodAffinity"} & weights.keys()
    assert "InterPodAffinity" not in names(config, "filter")


def test_everything_can_be_disabled_but_what_is_enabled() -> None:
    only = {"disabled": [{"name": "*"}], "enabled": [{"name": "ImageLocality", "weight": 2}]}
    config = parse(profiles=[{"plugins": {"score": only}}])
    assert resolve(config.profiles[0], KNOWN)["score"] == [("ImageLocality", 2)]


PROFILE: dict[str, Any] = {"profiles": [{}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"parallelism": 0}, "parallelism: Invalid value: 0: should be an integer value greater than zero"),
        ({"percentageOfNodesToScore": 101}, "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]"),
        ({"podInitialBackoffSeconds": 0}, "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0"),
        (
            {"podMaxBackoffSeconds": 0.5},
            "podMaxBackoffSeconds: Invalid value: 0.5: must be greater than or equal to PodInitialBackoffSeconds",
        ),
        ({"colour": "red"}, 'strict decoding error: unknown field "colour"'),
        ({"profiles": [{"colour": 1}]}, 'strict decoding error: unknown field "profiles[0].colour"'),
        ({"profiles": "all"}, 'profiles: Invalid value: "all": is of the wrong type'),
        ({"profiles": [{}, {}]}, 'profiles[1].schedulerName: Duplicate value: "profiles[0].schedulerName"'),
        (
            {"profiles": [{"plugins": {"score": {"enabled": [{"name": "Nope"}]}}}]},
            'profiles[0].plugins.score.enabled[0].name: Unsupported value: "Nope": supported values: ',
        ),
        (
            {"profiles": [{"plugins": {"score": {"enabled": [{"name": "NodePorts"}]}}}]},
            'profiles[0].plugins.score.enabled[0].name: Invalid value: "NodePorts": the plugin does not extend score',
        ),
        (
            {"profiles": [{"plugins": {"score": {"enabled": [{"name": "ImageLocality", "weight": -1}]}}}]},
            "profiles[0].plugins.score.enabled[0].weight: Invalid value: -1: must not be negative",
        ),
        (
            {"profiles": [{"pluginConfig": [{"name": "InterPodAffinity", "args": {"hardPodAffinityWeight": 101}}]}]},
            "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
        ),
        (
            {"profiles": [{"pluginConfig": [{"name": "NodeResourcesFit", "args": {"weight": 1}}]}]},
            'strict decoding error: unknown field "profiles[0].pluginConfig[0].args.weight"',
        ),
        (
            {
                "profiles": [
                    {"pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "Best"}}}]}
                ]
            },
            "profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: ",
        ),
        ({"extenders": [{"filterVerb": "filter"}]}, "extenders[0].urlPrefix: Required value"),
        (
            {"extenders": [{"urlPrefix": "http://a", "prioritizeVerb": "p"}]},
            "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
        ),
        (
            {"extenders": [{"urlPrefix": "http://a", "bindVerb": "b"}] * 2},
            'extenders: Invalid value: "found 2 extenders implementing bind": only one extender can implement bind',
        ),
        ({"leaderElection": {"resourceLock": "endpoints"}}, 'resourceLock value must be "leases"'),
    ],
)
def test_refusals(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(**content)
    assert message in str(refused.value)


def test_every_fault_is_told() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(parallelism=-1, colour=1, profiles=[{"schedulerName": ""}])
    assert all(word in str(refused.value) for word in ("parallelism", "colour", "profiles[0].schedulerName"))


@pytest.mark.parametrize("content", [None, [], {}, {"apiVersion": "v1", "kind": "Pod"}])
def test_something_else_altogether(content: Any) -> None:
    with pytest.raises(ConfigurationError):
        configuration.parse(content, KNOWN)


def test_flags_of_the_file(tmp_path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
        "leaderElection: {leaderElect: false, leaseDuration: 30s}\nclientConnection: {qps: 7}\n"
    )
    config = from_flags(parse_flags(FLAGS, [f"--config={file}", "--kube-api-qps=3"]).values)
    assert (config.leader_elect, config.leader_elect_lease_duration, config.kube_api_qps) == (False, 30, 7)


# The course's Policy

COURSE = {
    "kind": "Policy",
    "apiVersion": "v1",
    "predicates": [{"name": "PodFitsHostPorts"}, {"name": "PodFitsResources"}],
    "priorities": [
        {"name": "LeastRequestedPriority", "weight": 1},
        {"name": "BalancedResourceAllocation", "weight": 1},
    ],
    "hardPodAffinitySymmetricWeight": 10,
}


def test_the_policy_of_the_course(tmp_path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(COURSE))
    config = policy.load(str(file), "my-scheduler")
    assert config.profiles[0].scheduler_name == "my-scheduler"
    assert names(config, "filter") == ["NodeUnschedulable", "TaintToleration", "NodePorts", "NodeResourcesFit"]
    assert resolve(config.profiles[0], KNOWN)["score"] == [
        ("NodeResourcesFit", 1),
        ("NodeResourcesBalancedAllocation", 1),
    ]
    assert config.profiles[0].args["InterPodAffinity"] == {"hardPodAffinityWeight": 10}
    assert names(config, "bind") == ["DefaultBinder"] and names(config, "postFilter") == ["DefaultPreemption"]


@pytest.mark.parametrize("content", [COURSE, {"kind": "Policy", "apiVersion": "v1"}])
def test_plugins_of_a_policy_are_only_where_they_belong(content: dict[str, Any]) -> None:
    for point, plugins in resolve(policy.parse(content, "x").profiles[0], KNOWN).items():
        assert all(point in KNOWN[name] for name, _ in plugins), point


@pytest.mark.parametrize("name", sorted(policy.PREDICATES))
def test_every_predicate_is_some_rule(name: str) -> None:
    config = policy.parse({**COURSE, "predicates": [{"name": name}]}, "x")
    assert set(policy.PREDICATES[name]) <= set(names(config, "filter"))


@pytest.mark.parametrize("name", sorted(set(policy.PRIORITIES) - {"EqualPriority", "RequestedToCapacityRatioPriority"}))
def test_every_priority_is_some_rule_of_that_weight(name: str) -> None:
    config = policy.parse({**COURSE, "priorities": [{"name": name, "weight": 3}]}, "x")
    assert resolve(config.profiles[0], KNOWN)["score"] == [(policy.PRIORITIES[name], 3)]


def test_a_policy_without_anything_is_the_old_default() -> None:
    config = policy.parse({"kind": "Policy", "apiVersion": "v1"}, "x")
    weights = dict(resolve(config.profiles[0], KNOWN)["score"])
    assert weights["NodePreferAvoidPods"] == 10000 and weights["SelectorSpread"] == 1
    assert "InterPodAffinity" in names(config, "filter")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicates": [{"name": "Nope"}]}, 'predicates[0].name: Unsupported value: "Nope"'),
        ({"priorities": [{"name": "EqualPriority"}]}, "priorities[0].weight: Invalid value: 0: must be a positive"),
        ({"hardPodAffinitySymmetricWeight": 101}, "hardPodAffinitySymmetricWeight: Invalid value: 101"),
        ({"colour": 1}, 'unknown field "colour"'),
        ({"kind": "Pod"}, "kind: Invalid value"),
        ({"predicates": [{"name": "HostName", "argument": {"labelsPresence": {}}}]}, "predicates[0].argument: Invalid"),
        (
            {"priorities": [{"name": "EqualPriority", "weight": 1, "argument": {"labelPreference": {}}}]},
            'priorities[0].argument: Invalid value: "": EqualPriority takes none',
        ),
    ],
)
def test_bad_policies(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        policy.parse({**COURSE, **change}, "x")
    assert message in str(refused.value)
