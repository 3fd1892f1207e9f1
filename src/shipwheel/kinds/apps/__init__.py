"""The `apps` group: workloads that run for as long as they are wanted."""
