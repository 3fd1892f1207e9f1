"""Objects as bytes: JSON and YAML, and which of them a request means.

Kubernetes' protobuf is in `shipwheel.api.protobuf` (the wire) and `shipwheel.kinds.wire` (the messages).
"""

from shipwheel.api.codec.json_form import decode_json, encode_json, html_safe, ordered, places, read_json
from shipwheel.api.codec.media_type import ALL as ALL_FORMATS
from shipwheel.api.codec.media_type import (
    JSON,
    OBJECT_ROUTE,
    STREAM_ROUTE,
    Format,
    MediaType,
    check_route,
    content_format,
    media_name,
    negotiate,
    takes_json,
    unknown_format,
)
from shipwheel.api.codec.yaml_form import decode_yaml, encode_yaml

encode = encode_json

__all__ = [
    "ALL_FORMATS",
    "JSON",
    "OBJECT_ROUTE",
    "STREAM_ROUTE",
    "Format",
    "MediaType",
    "check_route",
    "content_format",
    "decode_json",
    "decode_yaml",
    "encode",
    "encode_json",
    "encode_yaml",
    "html_safe",
    "media_name",
    "negotiate",
    "ordered",
    "places",
    "read_json",
    "takes_json",
    "unknown_format",
]
