"""Revisions of bytes: the Store interface and its engines."""
