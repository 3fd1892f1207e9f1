"""A Job's pure parts: indexes, policies, back-off, what to create and to delete."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj
from shipwheel.controllers.job.backoff import Backoff
from shipwheel.controllers.job.indexes import Indexes
from shipwheel.controllers.job.plan import FINALIZER, INDEX, INDEX_FAILURES, failure_counts, plan, view
from shipwheel.controllers.job.policy import judge_failure, success_rule_met
from tests.controllers.objects import NOW, ago, meta, pod

INDEX_SETS = st.frozensets(st.integers(0, 40))


class TestIndexes:
    @given(INDEX_SETS)
    def test_text_and_back(self, indexes):
        made = Indexes.of(indexes)
        assert Indexes.parse(str(made), 41) == made
        assert len(made) == len(indexes)
        assert all((index in made) == (index in indexes) for index in range(42))

    @given(INDEX_SETS, INDEX_SETS)
    def test_they_are_sets(self, one, other):
        assert Indexes.of(one) | Indexes.of(other) == Indexes.of(one | other)
        assert Indexes.of(one).common(Indexes.of(other)) == len(one & other)
        assert list(Indexes.of(one).missing(30)) == [index for index in range(30) if index not in one]

    @pytest.mark.parametrize(
        ("indexes", "text"),
        [((), ""), ((1,), "1"), ((1, 2), "1,2"), ((1, 2, 3), "1-3"), ((0, 2, 3, 4, 6, 8, 9), "0,2-4,6,8,9")],
    )
    def test_how_they_are_written(self, indexes, text):
        assert str(Indexes.of(indexes)) == text

    @pytest.mark.parametrize(
        ("text", "expected"), [("1,x,3", (1, 3)), ("0-99", (0, 1, 2, 3, 4)), ("7", ()), ("3-", (3,)), ("", ())]
    )
    def test_what_is_garbled_or_beyond_is_left_out(self, text, expected):
        assert Indexes.parse(text, 5) == Indexes.of(expected)


def failed_with(code: int, container: str = "c", **fields: object) -> Obj:
    state = {"terminated": {"exitCode": code, "finishedAt": ago(5)}}
    return pod("p", "Failed", status={"containerStatuses": [{"name": container, "state": state}]}, **fields)


def rule(action: str, **what: object) -> Obj:
    return {"rules": [{"action": action, **what}]}


class TestFailurePolicy:
    @pytest.mark.parametrize(
        ("operator", "values", "code", "matches"),
        [("In", [1, 42], 42, True), ("In", [1, 42], 2, False), ("NotIn", [1, 42], 2, True), ("NotIn", [1], 1, False)],
    )
    def test_exit_codes(self, operator, values, code, matches):
        policy = rule("FailJob", onExitCodes={"operator": operator, "values": values})
        verdict = judge_failure(policy, failed_with(code))
        assert bool(verdict.fails_job) is matches
        if matches:
            assert verdict.fails_job == (
                f"Container c for pod default/p failed with exit code {code} matching FailJob rule at index 0"
            )

    def test_only_the_named_container_counts(self):
        policy = rule("FailJob", onExitCodes={"containerName": "d", "operator": "In", "values": [1]})
        assert not judge_failure(policy, failed_with(1)).fails_job
        assert judge_failure(policy, failed_with(1, "d")).fails_job

    def test_exit_code_zero_is_no_failure(self):
        assert not judge_failure(
            rule("FailJob", onExitCodes={"operator": "NotIn", "values": [1]}), failed_with(0)
        ).fails_job

    def test_conditions(self):
        policy = rule("Ignore", onPodConditions=[{"type": "DisruptionTarget", "status": "True"}])
        disrupted = pod("p", "Failed", status={"conditions": [{"type": "DisruptionTarget", "status": "True"}]})
        assert judge_failure(policy, disrupted).counts is False
        assert judge_failure(policy, pod("p", "Failed")).counts is True

    def test_the_first_rule_that_matches_decides(self):
        policy = {
            "rules": [
                {"action": "Count", "onExitCodes": {"operator": "In", "values": [1]}},
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2]}},
            ]
        }
        assert judge_failure(policy, failed_with(1)).action == "Count"
        assert judge_failure(policy, failed_with(2)).action == "FailJob"

    def test_without_a_policy_failures_count(self):
        assert judge_failure(None, pod("p", "Failed")).counts is True


@pytest.mark.parametrize(
    ("rules", "succeeded", "expected"),
    [
        ([{"succeededIndexes": "0-2"}], (0, 1, 2), "Matched rules at index 0"),
        ([{"succeededIndexes": "0-2"}], (0, 1), ""),
        ([{"succeededIndexes": "0-2", "succeededCount": 2}], (0, 2), "Matched rules at index 0"),
        ([{"succeededIndexes": "0"}, {"succeededCount": 2}], (3, 4), "Matched rules at index 1"),
        ([{"succeededCount": 1}], (), ""),
    ],
)
def test_success_policy(rules, succeeded, expected):
    assert success_rule_met({"rules": rules}, Indexes.of(succeeded), 5) == expected


class TestBackoff:
    @pytest.mark.parametrize(("failures", "seconds"), [(0, 0), (1, 10), (2, 20), (3, 40), (7, 600), (100, 600)])
    def test_it_doubles_up_to_ten_minutes(self, failures, seconds):
        assert Backoff(failures, NOW).left(NOW) == seconds

    def test_time_that_has_passed_counts(self):
        assert Backoff(2, NOW - timedelta(seconds=15)).left(NOW) == 5
        assert Backoff(2, NOW - timedelta(seconds=25)).left(NOW) == 0

    def test_a_success_forgets_the_failures_before_it(self):
        def ended(name: str, seconds: float) -> Obj:
            return pod(
                name,
                status={"containerStatuses": [{"name": "c", "state": {"terminated": {"finishedAt": ago(seconds)}}}]},
            )

        backoff = Backoff(5, NOW).after([ended("good", 30)], [ended("before", 60), ended("after", 10)])
        assert backoff == Backoff(1, NOW - timedelta(seconds=10))
        assert Backoff(2, NOW).after([], [ended("x", 1)]).failures == 3


def job(status: Obj | None = None, **spec: object) -> Obj:
    full = {"parallelism": 2, "completions": 4, "backoffLimit": 6, "template": {"spec": {"restartPolicy": "Never"}}}
    return {"metadata": meta("j"), "spec": full | spec, "status": status or {}}


def job_pod(
    name: str, phase: str = "Running", index: int | None = None, failures: int | None = None, **fields: object
) -> Obj:
    annotations = {}
    if index is not None:
        annotations[INDEX] = str(index)
    if failures is not None:
        annotations[INDEX_FAILURES] = str(failures)
    return pod(name, phase, finalizers=[FINALIZER], annotations=annotations, created=7200, ready_for=7200, **fields)


def see(obj: Obj, *pods: Obj):
    return view(obj, pods, frozenset(), Backoff(), NOW)


class TestPlan:
    @pytest.mark.parametrize(
        ("spec", "pods", "creates"),
        [
            ({}, 0, 2),
            ({}, 1, 1),
            ({}, 2, 0),
            ({"parallelism": 10}, 0, 4),
            ({"parallelism": 0}, 0, 0),
            ({"completions": None, "parallelism": 3}, 1, 2),
            ({"suspend": True}, 0, 0),
            ({"parallelism": 1000, "completions": 1000}, 0, 500),
        ],
    )
    def test_how_many_are_made(self, spec, pods, creates):
        work = plan(see(job(**spec), *(job_pod(f"p{index}") for index in range(pods))))
        assert len(work.create) == creates
        assert work.delete == ()

    def test_a_work_queue_that_has_a_success_makes_no_more(self):
        work = plan(see(job(completions=None, parallelism=3), job_pod("a", "Succeeded"), job_pod("b")))
        assert work.create == work.delete == ()

    def test_only_what_is_left_to_complete_is_made(self):
        found = see(job({"succeeded": 3}), job_pod("a"))
        assert plan(found).create == ()

    def test_too_many_go_the_idle_ones_first(self):
        idle = job_pod("idle", "Pending")
        work = plan(see(job(parallelism=1), job_pod("busy"), idle))
        assert work.delete == (idle,)

    def test_suspending_removes_all(self):
        assert len(plan(see(job(suspend=True), job_pod("a"), job_pod("b"))).delete) == 2

    def test_missing_indexes_are_made_in_order(self):
        indexed = job({"completedIndexes": "0"}, completionMode="Indexed", parallelism=3)
        assert plan(see(indexed, job_pod("a", index=2))).create == (1, 3)

    def test_doubled_and_alien_indexes_go(self):
        pods = [job_pod("a", index=0), job_pod("b", "Pending", index=0), job_pod("c", index=9), job_pod("d")]
        work = plan(see(job(completionMode="Indexed", parallelism=4), *pods))
        assert {each["metadata"]["name"] for each in work.delete} == {"b", "c", "d"}

    def test_a_failure_is_waited_for(self):
        failed = job_pod("a", "Failed", status={"containerStatuses": [
            {"name": "c", "state": {"terminated": {"finishedAt": ago(4)}}}]})  # fmt: skip
        assert plan(see(job(), failed)).look_after == 6

    def test_with_replacement_policy_failed_terminating_pods_are_not_replaced(self):
        leaving = job_pod("a", deleted=True)
        assert len(plan(see(job(podReplacementPolicy="Failed"), leaving)).create) == 1
        assert plan(see(job(), leaving)).look_after is not None  # it counts as failed: back-off


class TestVerdict:
    def test_backoff_limit(self):
        failed = [job_pod(f"p{index}", "Failed") for index in range(3)]
        assert see(job(backoffLimit=3), *failed).verdict is None
        verdict = see(job(backoffLimit=2), *failed).verdict
        assert (verdict["type"], verdict["reason"], verdict["message"]) == (
            "FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit",
        )  # fmt: skip

    def test_restarts_count_for_pods_that_restart(self):
        running = job_pod("a", status={"containerStatuses": [{"name": "c", "restartCount": 3, "state": {}}]})
        template = {"spec": {"restartPolicy": "OnFailure"}}
        assert see(job(backoffLimit=3, template=template), running).verdict["reason"] == "BackoffLimitExceeded"
        assert see(job(backoffLimit=4, template=template), running).verdict is None

    def test_deadline(self):
        found = see(job({"startTime": ago(50)}, activeDeadlineSeconds=60))
        assert found.verdict is None
        assert found.look_after == 10
        assert see(job({"startTime": ago(60)}, activeDeadlineSeconds=60)).verdict["reason"] == "DeadlineExceeded"
        assert see(job({"startTime": ago(60)}, activeDeadlineSeconds=60, suspend=True)).verdict is None

    def test_pod_failure_policy(self):
        policy = rule("FailJob", onExitCodes={"operator": "In", "values": [42]})
        fatal = {**failed_with(42), "metadata": job_pod("p", "Failed")["metadata"]}
        assert see(job(podFailurePolicy=policy), fatal).verdict["reason"] == "PodFailurePolicy"

    @pytest.mark.parametrize(
        ("spec", "failed", "reason"),
        [
            ({"backoffLimitPerIndex": 0}, [0], None),
            ({"backoffLimitPerIndex": 0, "maxFailedIndexes": 1}, [0, 1], "MaxFailedIndexesExceeded"),
            ({"backoffLimitPerIndex": 0}, [0, 1, 2, 3], "FailedIndexes"),
        ],
    )
    def test_failed_indexes(self, spec, failed, reason):
        pods = [job_pod(f"p{index}", "Failed", index, 0) for index in failed]
        found = see(job(completionMode="Indexed", backoffLimit=2**31 - 1, **spec), *pods)
        assert str(found.failed_indexes) == str(Indexes.of(failed))
        assert (found.verdict or {}).get("reason") == reason

    def test_an_index_has_tries_left(self):
        found = see(job(completionMode="Indexed", backoffLimitPerIndex=1), job_pod("a", "Failed", 0, 0))
        assert len(found.failed_indexes) == 0
        assert 0 in found.delayed
        assert failure_counts(found.job, found.delayed[0])[INDEX_FAILURES] == "1"
        exhausted = see(job(completionMode="Indexed", backoffLimitPerIndex=1), job_pod("a", "Failed", 0, 1))
        assert 0 in exhausted.failed_indexes

    def test_success_policy_ends_it_early(self):
        policy = {"rules": [{"succeededIndexes": "0"}]}
        found = see(job(completionMode="Indexed", successPolicy=policy), job_pod("a", "Succeeded", 0))
        assert (found.verdict["type"], found.verdict["reason"]) == ("SuccessCriteriaMet", "SuccessPolicy")


def test_a_pod_is_counted_by_its_finalizer():
    """One that we have released, or that is in the status already, does not count again."""
    done = job_pod("a", "Succeeded")
    assert see(job(), done).succeeded == 1
    assert view(job(), [done], frozenset(["uid-a"]), Backoff(), NOW).succeeded == 0
    noted = job({"uncountedTerminatedPods": {"succeeded": ["uid-a"]}})
    assert see(noted, done).succeeded == 1
