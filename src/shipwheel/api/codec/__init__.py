"""Objects as bytes: JSON and YAML, and which of them a request means.

Kubernetes' protobuf is in `shipwheel.api.protobuf` (the wire) and `shipwheel.kinds.wire` (the messages).
"""

from shipwheel.api.codec.json_form import decode_json, encode_json, html_safe, ordered, places, read_json
from shipwheel.api.codec.media_type import ALL as ALL_FORMATS
from shipwheel.api.codec.media_type import (
    Format,
    MediaType,
    content_format,
    is_routed,
    media_name,
    negotiate,
    not_routed,
    unknown_format,
)
from shipwheel.api.codec.yaml_form import decode_yaml, encode_yaml

encode = encode_json

__all__ = [
    "ALL_FORMATS",
    "Format",
    "MediaType",
    "content_format",
    "decode_json",
    "decode_yaml",
    "encode",
    "encode_json",
    "encode_yaml",
    "html_safe",
    "is_routed",
    "media_name",
    "negotiate",
    "not_routed",
    "ordered",
    "places",
    "read_json",
    "unknown_format",
]
