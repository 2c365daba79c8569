"""What the kernel counts on a connection is read from where it is."""

from __future__ import annotations

import socket
import sys

import pytest

from daemon.network.tcp_info import SegmentCounts, segments


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
def test_segments_are_counted() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as caller,
    ):
        called, _ = listener.accept()
        with called:
            assert segments(caller).sent == 0
            for _ in range(10):
                caller.sendall(bytes(1000))
                assert called.recv(1000, socket.MSG_WAITALL)
            assert segments(caller) == SegmentCounts(10, 0)
            assert segments(called).sent == 0


def test_of_a_closed_connection_nothing_is_known() -> None:
    closed = socket.socket()
    closed.close()
    assert segments(closed) == SegmentCounts()
    with socket.socket(socket.AF_UNIX) as other:
        assert segments(other) == SegmentCounts()
