"""The API's description of itself: OpenAPI v3 by group and version, and v2.

Everything follows from the scheme: resources declare what can be done with them, schemas what they look like.
The functions are pure and not cheap (tens of milliseconds for a v3 document, a hundred for v2); callers keep
what they get until the kinds change (`scheme.generation`).
"""

from shipwheel.api.openapi.gnostic import encode_v2
from shipwheel.api.openapi.roots import root_paths
from shipwheel.api.openapi.v2 import build_v2
from shipwheel.api.openapi.v3 import build_v3, build_v3_root

__all__ = ["build_v2", "build_v3", "build_v3_root", "encode_v2", "root_paths"]
