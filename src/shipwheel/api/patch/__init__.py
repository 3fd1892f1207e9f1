"""Three ways to say a change: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.

(The fourth, server-side apply, keeps account of who owns what, and has its own package.) Each is a function of an
object and a decoded patch, and returns a new object that shares nothing with either: what comes next changes it in
place, while the object it came from is still needed and the patch may have to be applied again.
"""

from shipwheel.api.patch.json_patch import apply_json_patch
from shipwheel.api.patch.merge_patch import apply_merge_patch
from shipwheel.api.patch.strategic import apply_strategic

__all__ = ["apply_json_patch", "apply_merge_patch", "apply_strategic"]
