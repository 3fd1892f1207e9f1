"""Storage: binding claims to volumes, reclaiming, protecting, expanding and attaching them."""

from shipwheel.controllers.volumes.attach_detach import AttachDetachController
from shipwheel.controllers.volumes.binder import VolumeBinder
from shipwheel.controllers.volumes.ephemeral import EphemeralVolumeController
from shipwheel.controllers.volumes.expand import ExpandController
from shipwheel.controllers.volumes.protection import (
    AttributesClassProtection,
    ClaimProtection,
    VolumeProtection,
)

__all__ = [
    "AttachDetachController",
    "AttributesClassProtection",
    "ClaimProtection",
    "EphemeralVolumeController",
    "ExpandController",
    "VolumeBinder",
    "VolumeProtection",
]
