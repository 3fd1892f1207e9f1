"""The status of ValidatingAdmissionPolicies."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj
from shipwheel.client.resources import VALIDATING_ADMISSION_POLICIES
from shipwheel.controllers.admission_policy_status import AdmissionPolicyStatusController, wanted_status
from tests.controllers.fakeapi import Faults
from tests.controllers.world import World, without_faults


@pytest.mark.parametrize(
    ("generation", "observed", "expected"),
    [
        (1, None, {"observedGeneration": 1, "typeChecking": {}}),
        (2, 1, {"observedGeneration": 2, "typeChecking": {}}),
        (2, 2, None),
        (2, 3, None),
    ],
)
def test_what_is_to_be_written(generation, observed, expected):
    policy: Obj = {"metadata": {"generation": generation}}
    if observed is not None:
        policy["status"] = {"observedGeneration": observed}
    assert wanted_status(policy) == expected


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_every_generation_is_observed_once(seed):
    faults = Faults() if seed is None else Faults(fail_before=0.2, conflict=0.2, break_watch=0.1, lag=0.2, seed=seed)
    world = World((AdmissionPolicyStatusController,), faults)

    def status() -> Obj:
        return world.api.get(VALIDATING_ADMISSION_POLICIES, "p")["status"]

    async with world.running():
        body = {"metadata": {"name": "p"}, "spec": {"validations": [{"expression": "true"}]}}
        world.api.create(VALIDATING_ADMISSION_POLICIES, body)
        await world.until(lambda: status() == {"observedGeneration": 1, "typeChecking": {}}, within=2000)
        without_faults(world)
        world.api.change(
            VALIDATING_ADMISSION_POLICIES, "p", "", lambda policy: policy["spec"].update(failurePolicy="Ignore")
        )
        await world.until(lambda: status()["observedGeneration"] == 2, within=2000)
        before = world.api.writes
        world.api.change(VALIDATING_ADMISSION_POLICIES, "p", "", lambda obj: obj["metadata"].update(labels={"a": "b"}))
        await world.settle(1)
        assert world.api.writes == before
