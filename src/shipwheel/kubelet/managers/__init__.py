"""Who gets which part of the node: CPUs, memory of NUMA nodes, devices, and claims on them (upstream's `cm`)."""
