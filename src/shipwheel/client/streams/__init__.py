"""Streams inside an HTTP connection: what exec, attach and port-forward travel on."""
