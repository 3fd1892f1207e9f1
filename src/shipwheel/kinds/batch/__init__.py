"""The `batch` group: workloads that end."""
