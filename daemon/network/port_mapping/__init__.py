"""Asks the home router to send connections from outside to this node.

- `gateway`: what a router must offer.
- `upnp`: a router that speaks UPnP IGD; the one importer of miniupnpc.
- `nat_pmp`: a router that speaks NAT-PMP (RFC 6886).
- `pcp`: a router that speaks PCP (RFC 6887) over IPv6.
- `pinholes`: keeps our ports open at such a router.
- `port_mapper`: finds the router, maps the ports, renews the leases, and removes them at the end.
"""
