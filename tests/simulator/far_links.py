"""Two programs that send bytes between namespaces: `RECEIVE`, then `SEND ADDRESS BYTES`.

`SEND` prints how long it took.
"""

SEND = """
import socket, sys, time
stream = socket.create_connection((sys.argv[1], 5000), 10)
began = time.monotonic()
stream.sendall(bytes(int(sys.argv[2])))
stream.shutdown(socket.SHUT_WR)
stream.recv(1)
print(time.monotonic() - began)
"""
RECEIVE = """
import socket
listener = socket.create_server(("", 5000))
print("up", flush=True)
stream, _ = listener.accept()
while stream.recv(1 << 16):
    pass
"""
