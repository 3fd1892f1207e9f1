"""Property tests hold on slow, loaded machines: no deadlines, and pauses are no faults."""

from hypothesis import HealthCheck, settings

settings.register_profile("shipwheel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shipwheel")
