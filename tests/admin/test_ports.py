"""Ports that are claimed: nobody else gets them, and whoever they are for can bind them."""

from __future__ import annotations

import os
import socket

import pytest

from shipwheel.admin.ports import Claims


def test_two_clusters_never_choose_the_same_port() -> None:
    with Claims() as one, Claims() as two:
        port = one.port(0, "0.0.0.0")
        assert two.port(port, "0.0.0.0") != port
        one.release()
        assert two.port(port, "0.0.0.0") == port


def test_a_component_binds_what_is_claimed_for_it_again_and_again() -> None:
    with Claims() as claims, Claims() as other:
        port = claims.port(0, "0.0.0.0")
        for host in ("127.0.0.1", "0.0.0.0"):
            with socket.create_server((host, port)) as server, socket.create_connection(("127.0.0.1", port)):
                server.accept()[0].close()
            assert other.port(port, "0.0.0.0") != port, "nor between two starts of the component"


def test_a_port_that_is_taken_or_to_be_avoided() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Claims() as claims:
        taken = server.getsockname()[1]
        assert claims.port(taken, "0.0.0.0") not in (0, taken)
        free = claims.port(0, "0.0.0.0")
        assert claims.port(free, "0.0.0.0", [free]) != free


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_child_inherited_is_held_until_that_ends() -> None:
    with Claims() as claims, Claims() as other:
        port = claims.port(0, "0.0.0.0")
        end, until = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(until)
            os.read(end, 1)
            os._exit(0)
        claims.release()
        assert other.port(port, "0.0.0.0") != port
        os.close(until)
        os.waitpid(pid, 0)
        os.close(end)
        assert other.port(port, "0.0.0.0") == port
