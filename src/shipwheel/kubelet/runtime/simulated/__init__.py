"""Pods without processes: what a container would do is declared, or read from its command."""

from shipwheel.kubelet.runtime.simulated.runtime import SimulatedRuntime

__all__ = ["SimulatedRuntime"]
