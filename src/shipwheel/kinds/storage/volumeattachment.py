"""Volume attachments: a volume at a node."""

from __future__ import annotations

from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, dig, text
from shipwheel.kinds.declare import STATUS, served

RESOURCES = (
    Resource(
        kind="VolumeAttachment",
        plural="volumeattachments",
        singular="volumeattachment",
        namespaced=False,
        versions=(served("storage.k8s.io", "v1", "VolumeAttachment"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Attacher", text("spec", "attacher"), format="name"),
            Column("PV", text("spec", "source", "persistentVolumeName")),
            Column("Node", text("spec", "nodeName")),
            Column("Attached", lambda obj, now: bool(dig(obj, "status", "attached")), type="boolean"),
            AGE,
        ),
        subresources=(STATUS,),
    ),
)
