"""Jobs: run pods until enough of them have succeeded, and count each exactly once.

`plan` judges where a Job stands and decides about pods, `tracking` counts those that have ended, `indexes` is
arithmetic on sets of completion indexes, `policy` reads the failure and success policies, `backoff` says how
long to wait after failures: all pure. `controller` acts and writes.
"""

from shipwheel.controllers.job.controller import JobController

__all__ = ["JobController"]
