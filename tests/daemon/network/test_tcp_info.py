"""The segments that the kernel counts on a connection."""

from __future__ import annotations

import socket
import sys

import pytest

from daemon.network.tcp_info import SegmentCounts, count_segments


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
def test_segments_are_counted() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as caller,
    ):
        called, _ = listener.accept()
        with called:
            assert count_segments(caller).sent == 0
            for _ in range(10):
                caller.sendall(bytes(1000))
                assert called.recv(1000, socket.MSG_WAITALL)
            assert count_segments(caller) == SegmentCounts(10, 0)
            assert count_segments(called).sent == 0


def test_a_closed_connection_has_no_counts() -> None:
    closed = socket.socket()
    closed.close()
    assert count_segments(closed) == SegmentCounts()
    with socket.socket(socket.AF_UNIX) as other:
        assert count_segments(other) == SegmentCounts()
