"""The ports: what a node needs from the outside world, each as a small `typing.Protocol`.

`daemon/` has the real implementations, `simulator/` the fakes. Every port has a property suite in
`tests/ports/` that the real implementation and the fake both pass. The port of the chain is
`protocol/chain/port.py`.
"""
