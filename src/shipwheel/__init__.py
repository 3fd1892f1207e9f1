"""Shipwheel: Kubernetes, written in Python."""

__version__ = "0.1.0"

KUBERNETES_VERSION = "v1.36.0"
"""The upstream release whose API and behaviour this one has."""
