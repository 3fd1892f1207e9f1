"""Dynamic resource allocation (KEP-4381): claims to devices, and eviction from devices that are tainted."""

from shipwheel.controllers.devices.claims import ResourceClaimController
from shipwheel.controllers.devices.eviction import DeviceTaintEvictionController

__all__ = ["DeviceTaintEvictionController", "ResourceClaimController"]
