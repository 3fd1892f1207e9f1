"""The HorizontalPodAutoscaler: as many replicas as the metrics ask for.

`replicas` turns metrics into a number, `behavior` tames its changes: both pure. `metrics` asks the metrics APIs.
`controller` is the loop.
"""

from shipwheel.controllers.autoscaler.controller import HorizontalPodAutoscalerController

__all__ = ["HorizontalPodAutoscalerController"]
