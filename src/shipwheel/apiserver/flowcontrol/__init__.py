"""API priority and fairness (KEP-1040): which requests are carried out now, which wait, and which are sent away.

`matching` finds the flow schema of a request, `width` how many seats it takes, `shuffle` the queues it may wait in,
`queueset` who is next, `shares` how many seats a priority level has: plain functions and state machines that are told
the time. `fairness` joins them, follows the configuration and is what the pipeline talks to; `inflight` is the plain
limit that takes its place with `--enable-priority-and-fairness=false`. `objects` keeps the configuration that every
cluster has; `metrics` and `dumps` show what is going on.
"""
