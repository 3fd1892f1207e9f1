"""CronJobs: the decision (pure), and years of them on a clock that costs nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from shipwheel.api.clock import parse_time
from shipwheel.api.meta import Obj
from shipwheel.client.resources import CRON_JOBS, JOBS
from shipwheel.controllers.cronjob import CronJobController, beyond_history, decide, job_for, job_name
from tests.controllers.fakeapi import Faults
from tests.controllers.objects import NOW, ago, meta
from tests.controllers.world import World, without_faults


def cronjob(schedule: str = "0 * * * *", status: Obj | None = None, **spec: object) -> Obj:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": meta("tick"),
        "spec": {"schedule": schedule, "jobTemplate": {"spec": {"template": {}}}, **spec},
        "status": status or {},
    }


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


class TestDecide:
    """It is noon; the CronJob was made at 11."""

    @pytest.mark.parametrize(
        ("made", "now", "start"),
        [
            (cronjob(), NOW, NOW),
            (cronjob(), NOW - minutes(1), None),
            (cronjob(), NOW + minutes(30), NOW),
            (cronjob(status={"lastScheduleTime": ago(0)}), NOW + minutes(1), None),
            (cronjob(status={"lastScheduleTime": ago(0)}), NOW + minutes(60), NOW + minutes(60)),
            (cronjob(suspend=True), NOW, None),
            (cronjob(startingDeadlineSeconds=60), NOW + minutes(2), None),
            (cronjob(startingDeadlineSeconds=300), NOW + minutes(2), NOW),
            (cronjob("* * * * *"), NOW, NOW),
            (cronjob("*/7 * * * *"), NOW - minutes(1), NOW - minutes(4)),
        ],
    )
    def test_which_time_is_due(self, made, now, start):
        assert decide(made, (), now).start == start

    def test_it_looks_again_just_after_the_next_time(self):
        assert decide(cronjob(), (), NOW - minutes(10)).wait == pytest.approx(600.1)

    @pytest.mark.parametrize(
        ("policy", "start", "replace"), [("Allow", NOW, False), ("Forbid", None, False), ("Replace", NOW, True)]
    )
    def test_what_becomes_of_the_one_that_still_runs(self, policy, start, replace):
        decision = decide(cronjob(concurrencyPolicy=policy), ("tick-1",), NOW)
        assert (decision.start, decision.replace) == (start, replace)
        assert (("Normal", "JobAlreadyActive") in [event[:2] for event in decision.events]) is (policy == "Forbid")

    def test_one_that_was_started_but_not_noted_is_not_started_again(self):
        assert decide(cronjob(), (job_name(cronjob(), NOW),), NOW).start is None

    def test_only_the_last_of_many_missed_times_is_made_up_for(self):
        decision = decide(cronjob("* * * * *"), (), NOW + minutes(500))
        assert decision.start == NOW + minutes(500)
        ((kind, reason, message),) = decision.events
        assert (kind, reason) == ("Warning", "TooManyMissedTimes")
        assert message.startswith("too many missed start times.")

    def test_time_zones(self):
        made = cronjob("0 14 * * *", timeZone="Europe/Berlin")
        assert decide(made, (), NOW).start == NOW
        assert job_for(made, NOW)["metadata"]["annotations"] == {
            "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-05-01T14:00:00+02:00"
        }

    @pytest.mark.parametrize(
        ("made", "event"),
        [
            (
                cronjob("x"),
                ("UnparseableSchedule", 'unparseable schedule: "x" : expected exactly 5 fields, found 1: [x]'),
            ),
            (
                cronjob(timeZone="No/Where"),
                ("UnknownTimeZone", 'invalid timeZone: "No/Where": unknown time zone No/Where'),
            ),
        ],
    )
    def test_what_cannot_be_understood(self, made, event):
        decision = decide(made, (), NOW)
        assert decision.start is None
        assert decision.events == [("Warning", *event)]


def test_a_job_is_named_after_its_minute():
    made = job_for(cronjob(), NOW)
    assert made["metadata"]["name"] == f"tick-{int(NOW.timestamp()) // 60}"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-tick"


def finished(name: str, kind: str, minute: int) -> Obj:
    return {
        "metadata": meta(name),
        "status": {"conditions": [{"type": kind, "status": "True"}], "startTime": ago(6000 - minute * 60)},
    }


def test_history_keeps_the_newest_of_each_outcome():
    jobs = [finished(f"g{index}", "Complete", index) for index in range(5)]
    jobs += [finished(f"b{index}", "Failed", index) for index in range(3)]
    surplus = beyond_history(cronjob(successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1), jobs)
    assert [job["metadata"]["name"] for job in surplus] == ["g0", "g1", "b0", "b1"]


# On the fake API


def add(cluster: World, schedule: str, **spec: object) -> None:
    cluster.api.create(
        CRON_JOBS,
        {
            "metadata": {"name": "tick", "namespace": "default"},
            "spec": {
                "schedule": schedule,
                "concurrencyPolicy": "Allow",
                "successfulJobsHistoryLimit": 3,
                "failedJobsHistoryLimit": 1,
                "jobTemplate": {"spec": {"template": {"spec": {}}}},
                **spec,
            },
        },
    )


def finish_jobs(cluster: World) -> None:
    for job in cluster.api.list(JOBS):
        if not job["status"].get("conditions"):
            now = cluster.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")

            def change(obj: Obj, now: str = now) -> None:
                obj["status"] = {
                    "conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": now}],
                    "startTime": now,
                    "completionTime": now,
                }

            cluster.api.change(JOBS, job["metadata"]["name"], "default", change)


def started(cluster: World) -> list[datetime]:
    """The scheduled times of all Jobs that were ever made."""
    key = "batch.kubernetes.io/cronjob-scheduled-timestamp"
    return [
        parse_time(obj["metadata"]["annotations"][key])
        for _, gvr, kind, obj, _ in cluster.api.log
        if gvr == JOBS and kind == "ADDED"
    ]


async def test_a_year_of_days_passes_in_a_moment():
    cluster = World((CronJobController,))
    async with cluster.running():
        add(cluster, "30 3 * * *")
        begin = cluster.clock.now()
        for _ in range(366):
            await cluster.settle(86400)
            finish_jobs(cluster)
        times = started(cluster)
        assert len(times) in (365, 366)
        assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(times))
        assert times[0] - begin < timedelta(days=1)
        await cluster.settle(1)
        assert len(cluster.api.list(JOBS)) == 3


async def test_a_job_starts_within_a_second_of_its_minute():
    cluster = World((CronJobController,))
    async with cluster.running():
        add(cluster, "* * * * *")
        for _ in range(20):
            before = len(started(cluster))
            await cluster.pass_time(60 if before else 61)
            finish_jobs(cluster)
            assert len(started(cluster)) == before + 1
        for _, gvr, kind, obj, _ in cluster.api.log:
            if gvr == JOBS and kind == "ADDED":
                scheduled = int(obj["metadata"]["name"].removeprefix("tick-")) * 60
                made = parse_time(obj["metadata"]["creationTimestamp"]).timestamp()
                assert 0 <= made - scheduled <= 1


async def test_forbid_waits_and_replace_does_not():
    cluster = World((CronJobController,))
    async with cluster.running():
        add(cluster, "* * * * *", concurrencyPolicy="Forbid")
        await cluster.pass_time(300, step=10)
        assert len(started(cluster)) == 1
        cluster.api.change(CRON_JOBS, "tick", "default", lambda obj: obj["spec"].update(concurrencyPolicy="Replace"))
        await cluster.pass_time(120, step=10)
        assert len(cluster.api.list(JOBS)) == 1
        assert len(started(cluster)) > 1


@pytest.mark.parametrize("seed", range(4))
async def test_no_minute_is_done_twice_whatever_fails(seed):
    faults = Faults(fail_before=0.1, fail_after=0.1, conflict=0.1, break_watch=0.05, expire=0.2, lag=0.2, seed=seed)
    cluster = World((CronJobController,), faults)
    async with cluster.running():
        add(cluster, "*/5 * * * *")
        for hour in range(4):
            await cluster.pass_time(3600, step=20)
            finish_jobs(cluster)
            if hour == 1:
                await cluster.kill()
                await cluster.start()
        without_faults(cluster)
        times = started(cluster)
        assert len(times) == len(set(times))
        assert len(times) >= 4 * 12 - 3


async def test_status_follows_the_jobs():
    cluster = World((CronJobController,))
    async with cluster.running():
        add(cluster, "0 * * * *")
        await cluster.pass_time(3602, step=60)
        status = cluster.api.get(CRON_JOBS, "tick", "default")["status"]
        assert len(status["active"]) == 1
        assert status["lastScheduleTime"]
        finish_jobs(cluster)
        await cluster.settle(1)
        status = cluster.api.get(CRON_JOBS, "tick", "default")["status"]
        assert not status.get("active")
        assert status["lastSuccessfulTime"]
        assert cluster.events("SawCompletedJob")
