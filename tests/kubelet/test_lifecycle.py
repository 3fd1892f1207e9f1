"""The decisions: a table of situations, and random histories whose every step is checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipwheel.api.meta import Obj
from shipwheel.kubelet import podspec
from shipwheel.kubelet.lifecycle import (
    Actions,
    ProbeResults,
    decide,
    should_restart_all,
    stop_grace,
    termination_order,
    wants_start,
)
from shipwheel.kubelet.observed import ContainerObservation, PodObservation, observe_pod
from shipwheel.kubelet.runtime.base import Sandbox
from tests.kubelet.builders import container, observe, pod, sandbox, seen

SIDE = container("side", restartPolicy="Always")


def test_a_new_pod_gets_a_sandbox_and_its_containers() -> None:
    actions = decide(pod(container("a"), container("b")), observe(boxes=()))
    assert (actions.create_sandbox, actions.kill_pod, actions.attempt) == (True, True, 0)
    assert actions.start == ("a", "b")


def test_a_new_pod_with_init_containers_starts_only_the_first() -> None:
    actions = decide(pod(init=(container("i"), container("j"))), observe(boxes=()))
    assert (actions.start_init, actions.start) == (("i",), ())


def test_a_running_pod_is_left_alone() -> None:
    owner = pod(container("a"))
    assert decide(owner, observe(seen(owner, "a"))).nothing


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 1, False),
    ],
)
def test_an_exited_container_runs_again_by_policy(policy: str, code: int, again: bool) -> None:
    owner = pod(container("a"), container("b"), restartPolicy=policy)
    actions = decide(owner, observe(seen(owner, "a", "EXITED", code=code), seen(owner, "b")))
    assert actions.start == (("a",) if again else ())
    assert not actions.kill_pod


@pytest.mark.parametrize(
    ("own", "rules", "code", "again"),
    [
        ("Never", None, 1, False),
        ("Always", None, 0, True),
        ("OnFailure", None, 0, False),
        ("Never", [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}], 42, True),
        ("Never", [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}], 1, False),
        ("Never", [{"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0]}}], 7, True),
    ],
)
def test_a_container_may_have_a_policy_of_its_own(own: str, rules: list[Obj] | None, code: int, again: bool) -> None:
    extra = {"restartPolicyRules": rules} if rules else {}
    owner = pod(container("a", restartPolicy=own, **extra), container("b"), restartPolicy="Never")
    actions = decide(owner, observe(seen(owner, "a", "EXITED", code=code), seen(owner, "b")))
    assert actions.start == (("a",) if again else ())


def test_the_pod_ends_when_nothing_is_left_to_run() -> None:
    owner = pod(container("a"), init=(SIDE,), restartPolicy="Never")
    actions = decide(owner, observe(seen(owner, "side"), seen(owner, "a", "EXITED", at=20)))
    assert actions.kill_pod
    assert not actions.create_sandbox
    assert not actions.starts


@pytest.mark.parametrize(
    ("results", "reason", "text"),
    [
        (
            ProbeResults(liveness={"a-0": "Failure"}),
            "LivenessProbe",
            "Container a failed liveness probe, will be restarted",
        ),
        (
            ProbeResults(startup={"a-0": "Failure"}),
            "StartupProbe",
            "Container a failed startup probe, will be restarted",
        ),
    ],
)
def test_a_failed_probe_restarts_the_container(results: ProbeResults, reason: str, text: str) -> None:
    owner = pod(container("a"))
    actions = decide(owner, observe(seen(owner, "a")), results)
    assert [(each.reason, each.message) for each in actions.kill] == [(reason, text)]
    assert actions.start == ("a",)


def test_a_failed_probe_ends_a_container_that_is_not_to_run_again() -> None:
    owner = pod(container("a"), restartPolicy="Never")
    actions = decide(owner, observe(seen(owner, "a")), ProbeResults(liveness={"a-0": "Failure"}))
    assert [each.message for each in actions.kill] == ["Container a failed liveness probe"]
    assert actions.start == ()
    assert actions.kill_pod


def test_a_new_image_restarts_the_container_whatever_the_policy() -> None:
    owner = pod(container("a"), restartPolicy="Never")
    before = seen(owner, "a")
    owner["spec"]["containers"][0]["image"] = "image:2"
    actions = decide(owner, observe(before))
    assert actions.kill[0].message == "Container a definition changed, will be restarted"
    assert actions.start == ("a",)


def test_a_container_of_unknown_state_is_stopped_before_it_is_started() -> None:
    owner = pod(container("a"))
    actions = decide(owner, observe(seen(owner, "a", "UNKNOWN")))
    assert [each.container_id for each in actions.kill] == ["a-0"]
    assert actions.start == ("a",)


@pytest.mark.parametrize(
    "boxes",
    [
        (sandbox(ready=False),),
        (sandbox("s0"), sandbox("s1", attempt=1)),
        (sandbox(ip=""),),
    ],
    ids=["dead", "two", "no address"],
)
def test_an_unusable_sandbox_is_replaced(boxes: tuple[Sandbox, ...]) -> None:
    owner = pod(container("a"))
    actions = decide(owner, observe(seen(owner, "a", "EXITED", code=137), boxes=boxes))
    assert (actions.kill_pod, actions.create_sandbox) == (True, True)
    assert actions.attempt == max(box.attempt for box in boxes) + 1
    assert actions.start == ("a",)


def test_a_change_to_the_hosts_network_replaces_the_sandbox() -> None:
    owner = pod(container("a"), hostNetwork=True)
    actions = decide(owner, observe(boxes=(sandbox(),)))
    assert (actions.create_sandbox, actions.sandbox_id) == (True, "")


def test_a_pod_that_ran_once_gets_no_second_sandbox() -> None:
    owner = pod(container("a"), restartPolicy="Never")
    actions = decide(owner, observe(seen(owner, "a", "EXITED"), boxes=(sandbox(ready=False),)))
    assert (actions.kill_pod, actions.create_sandbox, actions.starts) == (True, False, ())


def test_what_succeeded_does_not_run_again_in_a_new_sandbox() -> None:
    owner = pod(container("a"), container("b"), restartPolicy="OnFailure")
    gone = observe(seen(owner, "a", "EXITED"), seen(owner, "b", "EXITED", code=1), boxes=(sandbox(ready=False),))
    assert decide(owner, gone).start == ("b",)


def test_init_containers_run_one_after_another() -> None:
    owner = pod(container("a"), init=(container("i"), container("j")))
    assert decide(owner, observe(seen(owner, "i"))).nothing
    assert decide(owner, observe(seen(owner, "i", "EXITED"))).start_init == ("j",)
    done = observe(seen(owner, "i", "EXITED"), seen(owner, "j", "EXITED", at=20))
    assert decide(owner, done).start == ("a",)


def test_a_failed_init_container_ends_a_pod_that_never_restarts() -> None:
    owner = pod(init=(container("i"),), restartPolicy="Never")
    actions = decide(owner, observe(seen(owner, "i", "EXITED", code=1)))
    assert (actions.kill_pod, actions.starts) == (True, ())


def test_a_failed_init_container_is_repeated_otherwise() -> None:
    owner = pod(init=(container("i"),))
    assert decide(owner, observe(seen(owner, "i", "EXITED", code=1))).start_init == ("i",)


def test_removed_init_containers_are_not_repeated_once_the_pod_is_initialized() -> None:
    owner = pod(container("a"), init=(container("i"),))
    assert decide(owner, observe(seen(owner, "a"))).nothing


def test_a_sidecar_lets_the_next_start_when_it_has_started() -> None:
    probed = container("side", restartPolicy="Always", startupProbe={"exec": {"command": ["true"]}})
    owner = pod(container("a"), init=(probed, container("j")))
    running = observe(seen(owner, "side"))
    assert decide(owner, running).nothing
    assert decide(owner, running, ProbeResults(startup={"side-0": "Success"})).start_init == ("j",)
    failed = decide(owner, running, ProbeResults(startup={"side-0": "Failure"}))
    assert [each.reason for each in failed.kill] == ["StartupProbe"]
    assert failed.start_init == ("side",)


def test_a_sidecar_is_kept_running() -> None:
    owner = pod(container("a"), init=(SIDE,))
    actions = decide(owner, observe(seen(owner, "side", "EXITED"), seen(owner, "a", at=20)))
    assert actions.start_init == ("side",)
    assert actions.start == ()


def test_ephemeral_containers_run_once() -> None:
    owner = pod(container("a"), ephemeralContainers=[container("debug")])
    running = seen(owner, "a")
    assert decide(owner, observe(running)).start_ephemeral == ("debug",)
    assert decide(owner, observe(running, seen(owner, "debug", "EXITED", code=1))).nothing


def test_all_containers_begin_anew_when_a_rule_says_so() -> None:
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [9]}}
    cause = container("a", restartPolicy="Never", restartPolicyRules=[rule])
    owner = pod(cause, container("b"), init=(container("i"),), restartPolicy="Never")
    state = observe(seen(owner, "i", "EXITED"), seen(owner, "a", "EXITED", code=9), seen(owner, "b"))
    assert should_restart_all(owner, state, None)
    actions = decide(owner, state, restart_all=True)
    assert [(each.name, each.running) for each in actions.reset] == [("b", True), ("i", False), ("a", False)]
    assert not should_restart_all(owner, observe(seen(owner, "a", "EXITED", code=1)), None)


def test_a_deleted_pods_containers_do_not_start() -> None:
    owner = pod(container("a"), meta={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert not wants_start(owner, owner["spec"]["containers"][0], observe())


def test_sidecars_end_after_the_rest_in_reverse_order() -> None:
    second = container("side2", restartPolicy="Always")
    owner = pod(container("a"), container("b"), init=(SIDE, second))
    assert termination_order(owner, {"a", "side", "side2"}) == {
        "a": set(),
        "side2": {"a"},
        "side": {"a", "side2"},
    }


@pytest.mark.parametrize(
    ("meta", "spec", "reason", "seconds"),
    [
        ({}, {"terminationGracePeriodSeconds": 30}, "", 30),
        ({"deletionGracePeriodSeconds": 5}, {"terminationGracePeriodSeconds": 30}, "LivenessProbe", 5),
        ({}, {"terminationGracePeriodSeconds": 30}, "LivenessProbe", 3),
        ({}, {"terminationGracePeriodSeconds": 30}, "StartupProbe", 30),
        ({}, {}, "", 2),
    ],
)
def test_how_long_a_container_gets_to_end(meta: Obj, spec: Obj, reason: str, seconds: int) -> None:
    own = container("a", livenessProbe={"terminationGracePeriodSeconds": 3}, startupProbe={})
    assert stop_grace(pod(own, meta=meta, **spec), own, reason) == seconds  # type: ignore[arg-type]


# Histories: what `decide` says is done to a model of the runtime, while anything may happen to it.


@dataclass
class World:
    owner: Obj
    sandboxes: list[Sandbox] = field(default_factory=list)
    containers: list[ContainerObservation] = field(default_factory=list)
    clock: int = 1
    started: dict[str, int] = field(default_factory=dict)

    def observed(self) -> PodObservation:
        return observe_pod("uid-1", self.sandboxes, self.containers)

    def tick(self) -> int:
        self.clock += 1
        return self.clock * 1_000_000_000

    def end(self, identity: str, code: int) -> None:
        self.containers = [
            replace(each, state="EXITED", exit_code=code, finished_at=self.tick()) if each.id == identity else each
            for each in self.containers
        ]

    def collect_garbage(self) -> None:
        """Ended containers may be removed, but the newest of each name stays."""
        newest = {}
        for each in self.containers:
            newest[each.name] = each.id
        self.containers = [each for each in self.containers if not each.exited or newest[each.name] == each.id]

    def carry_out(self, actions: Actions) -> None:
        if actions.kill_pod:
            for each in self.containers:
                if each.running:
                    self.end(each.id, 137)
            self.sandboxes = [replace(each, ready=False, ips=()) for each in self.sandboxes]
        for kill in actions.kill:
            self.end(kill.container_id, 137)
        if actions.create_sandbox:
            names = {each["name"] for each in podspec.init_containers(self.owner)}
            self.containers = [each for each in self.containers if each.name not in names]
            box = sandbox(f"s{actions.attempt}", attempt=actions.attempt)
            self.sandboxes.append(replace(box, created_at=self.tick()))
        for name in actions.starts:
            self.start(name)

    def start(self, name: str) -> None:
        spec = podspec.find_container(self.owner, name)
        assert spec is not None, f"{name} is not in the specification"
        assert not any(each.name == name and each.running for each in self.containers), f"{name} runs already"
        newest = max(self.sandboxes, key=lambda each: each.created_at)
        assert newest.ready, "a container needs a sandbox that is ready"
        count = sum(each.name == name for each in self.containers)
        self.started[name] = self.started.get(name, 0) + 1
        self.containers.append(
            ContainerObservation(
                f"{name}-{self.tick()}",
                name,
                "RUNNING",
                newest.id,
                count,
                podspec.container_hash(spec),
                created_at=self.tick(),
                started_at=self.clock * 1_000_000_000,
            )
        )


policies = st.sampled_from(["Always", "OnFailure", "Never"])


@st.composite
def pods(draw: st.DrawFn) -> Obj:
    init = []
    for index in range(draw(st.integers(0, 3))):
        extra = {"restartPolicy": "Always"} if draw(st.booleans()) else {}
        init.append(container(f"i{index}", **extra))
    main = [container(f"c{index}") for index in range(draw(st.integers(1, 3)))]
    return pod(*main, init=tuple(init), restartPolicy=draw(policies))


def check_step(world: World, actions: Actions) -> None:
    owner = world.owner
    before = world.observed()
    for name in actions.start:
        done = [before.latest(each["name"]) for each in podspec.init_containers(owner) if not podspec.is_sidecar(each)]
        unfinished = [each for each in done if each is not None and not (each.exited and each.exit_code == 0)]
        regular_seen = any(before.latest(each["name"]) for each in podspec.containers(owner))
        assert regular_seen or not unfinished, "a container may not run before initialization is over"
        last = before.latest(name)
        if last is not None and last.exited:
            spec = podspec.find_container(owner, name)
            assert spec is not None
            assert podspec.should_restart(owner, spec, last.exit_code), f"{name} was restarted against policy"
    if podspec.restart_policy(owner) == "Never":
        for name in actions.start:
            assert not world.started.get(name), f"{name} ran a second time"


@settings(max_examples=300, deadline=None)
@given(owner=pods(), data=st.data())
def test_random_histories(owner: Obj, data: st.DataObject) -> None:
    world = World(owner)
    for _ in range(data.draw(st.integers(0, 25), label="steps")):
        actions = decide(owner, world.observed())
        check_step(world, actions)
        world.carry_out(actions)
        running = [each.id for each in world.containers if each.running]
        event = data.draw(
            st.sampled_from(["nothing", "exit", "exit", "fail", "sandbox dies", "collect garbage"]),
            label="event",
        )
        if event in ("exit", "fail") and running:
            world.end(data.draw(st.sampled_from(running)), 0 if event == "exit" else 1)
        elif event == "sandbox dies" and world.sandboxes:
            for identity in running:
                world.end(identity, 137)
            world.sandboxes = [replace(each, ready=False, ips=()) for each in world.sandboxes]
        elif event == "collect garbage":
            world.collect_garbage()

    # Left in peace, a pod comes to rest: all that is to run runs, or nothing does.
    for _ in range(40):
        for each in [each for each in world.containers if each.running]:
            spec = podspec.find_container(owner, each.name)
            if each.name.startswith("i") and spec is not None and not podspec.is_sidecar(spec):
                world.end(each.id, 0)
        actions = decide(owner, world.observed())
        if actions.nothing or (actions.kill_pod and not actions.create_sandbox):
            break
        check_step(world, actions)
        world.carry_out(actions)
    else:
        pytest.fail("the pod never comes to rest")
    if actions.kill_pod:
        world.carry_out(actions)
        assert not any(each.running for each in world.containers)
    else:
        running_names = {each.name for each in world.containers if each.running}
        wanted = {
            each["name"]
            for each in podspec.containers(owner)
            if (last := world.observed().latest(each["name"])) is None
            or podspec.should_restart(owner, each, last.exit_code)
            or last.running
        }
        assert wanted <= running_names


def test_a_resize_may_need_a_restart() -> None:
    owner = pod(container("a"), init=(SIDE,))
    state = observe(seen(owner, "side"), seen(owner, "a", at=20))
    actions = decide(owner, state, resize_restarts=frozenset({"a-0", "side-0"}))
    assert {each.message for each in actions.kill} == {
        "Container a resize requires restart",
        "Container side resize requires restart",
    }
    assert (actions.start_init, actions.start) == (("side",), ("a",))
