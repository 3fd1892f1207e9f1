"""Measurements: `python -m bench` runs those of a whole cluster, `python -m bench.api` and so on one by one."""
