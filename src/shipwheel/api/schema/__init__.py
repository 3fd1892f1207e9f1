"""Structural schemas: what they are, and what is done to objects by them.

`conform` is for built-in kinds, `prune` and `validate` for custom ones; `apply_defaults` serves both.
"""

from shipwheel.api.schema.conform import DecodeError, conform
from shipwheel.api.schema.model import MISSING, Schema, from_openapi

__all__ = ["MISSING", "DecodeError", "Schema", "conform", "from_openapi"]
