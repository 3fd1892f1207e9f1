"""gRPC with messages from tables: what the node speaks to container runtimes, CSI drivers and device plugins.

The usual library brings 20 MB, a tenth of a second of start-up and threads that do not survive a fork; on top of
an HTTP/2 library what is needed of the protocol is small.
Protocol: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""
