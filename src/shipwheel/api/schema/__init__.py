"""Structural schemas: what they are, and what is done to objects by them.

A built-in kind's body is brought into form by `conform`; a custom one's by `drop_nulls`, `apply_defaults`,
`conform_metadata` and `prune`, and is judged by `validate`. `apply_defaults` serves both.
"""

from shipwheel.api.schema.conform import DecodeError, conform
from shipwheel.api.schema.model import MISSING, Schema, from_openapi
from shipwheel.api.schema.structural import apply_defaults, conform_metadata, drop_nulls, has_defaults, prune
from shipwheel.api.schema.validation import validate

__all__ = [
    "MISSING",
    "DecodeError",
    "Schema",
    "apply_defaults",
    "conform",
    "conform_metadata",
    "drop_nulls",
    "from_openapi",
    "has_defaults",
    "prune",
    "validate",
]
