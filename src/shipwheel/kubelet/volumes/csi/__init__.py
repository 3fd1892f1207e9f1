"""CSI: volumes of drivers that run on the node and are spoken to over a socket.

Specification: https://github.com/container-storage-interface/spec
"""
