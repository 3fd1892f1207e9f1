"""Time is a parameter: a year of CronJobs, a Job's last hundred days and a dead node's eviction pass in a moment."""

from __future__ import annotations

from datetime import timedelta

from shipwheel.api.clock import parse_time
from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import CRON_JOBS, JOBS, NODES, PODS
from shipwheel.controllers.cronjob import SCHEDULED_AT, CronJobController
from shipwheel.controllers.node_lifecycle import NodeLifecycleController
from shipwheel.controllers.taint_eviction import TaintEvictionController
from shipwheel.controllers.ttl_after_finished import TtlAfterFinishedController
from tests.controllers.world import World, template

DAY = 86400.0
LABELS = {"app": "x"}


def job(name: str, **spec: object) -> Obj:
    completed = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": template(LABELS), **spec},
        "status": {"conditions": [completed]},
    }


async def test_a_year_of_cron_jobs_and_a_job_that_may_stay_a_hundred_days():
    world = World((CronJobController, TtlAfterFinishedController))
    cronjob = {
        "schedule": "30 3 * * *",
        "jobTemplate": {"spec": {"template": template(LABELS)}},
        "successfulJobsHistoryLimit": 1,
    }
    fired = []
    world.law(lambda gvr, kind, obj, old: fired.append(obj) or "" if gvr == JOBS and kind == "ADDED" else "")
    async with world.running():
        world.api.create(CRON_JOBS, {"metadata": {"name": "daily", "namespace": "default"}, "spec": cronjob})
        world.api.create(JOBS, job("done", ttlSecondsAfterFinished=int(100 * DAY)))
        gone = None
        for day in range(1, 366):
            await world.settle(DAY)
            for each in world.api.list(JOBS):
                if not each["status"]:
                    status = {"conditions": [{"type": "Complete", "status": "True"}]}
                    world.api.change(
                        JOBS, each["metadata"]["name"], "default", lambda obj, s=status: obj.update(status=s)
                    )
            if gone is None and world.api.get(JOBS, "done", "default")["metadata"].get("deletionTimestamp"):
                gone = day
    times = [parse_time(each["metadata"]["annotations"][SCHEDULED_AT]) for each in fired[1:]]
    begin = times[0]
    assert times == [begin + timedelta(days=day) for day in range(365)]
    assert gone == 100


async def test_the_pods_of_a_node_that_nobody_hears_of():
    world = World((NodeLifecycleController, TaintEvictionController))
    for name in ("dead", "alive"):
        world.add_node(name)
    toleration = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    spec = {**template(LABELS)["spec"], "nodeName": "dead", "tolerations": [{**toleration, "tolerationSeconds": 300}]}
    world.api.create(PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})

    def beat(node: Obj) -> None:
        node["status"]["conditions"][0]["lastHeartbeatTime"] = str(world.clock.now())

    async with world.running():
        begin = world.clock.monotonic()
        evicted = 0.0
        while not evicted and world.clock.monotonic() < begin + 900:
            world.api.change(NODES, "alive", "", beat)
            await world.settle(20)
            if world.api.get(PODS, "p", "default")["metadata"].get("deletionTimestamp"):
                evicted = world.clock.monotonic() - begin
        ready = condition(world.api.get(NODES, "dead"), "Ready")
        assert ready is not None and ready["status"] == "Unknown"
        # A node may be silent for 50 s and is looked at every 5; the pod bears it for 300.
        assert 340 <= evicted <= 400
