"""What each setting means, in one line."""

from __future__ import annotations

from collections.abc import Mapping

# One line for each setting, shown in the config file and in the help.
EXPLAINED: Mapping[str, str] = {
    "node.name": "the name that others see; empty: made from the peer id",
    "network.listen_host": "the address to listen on; ::: all interfaces; 0.0.0.0: those of IPv4",
    "network.listen_port": "TCP port of control traffic; 0: the system chooses one, which later"
    " starts reuse where it is free",
    "network.bulk_port": "TCP port of gradients; 0: the system chooses one",
    "network.one_port": "take gradients at listen_port too, so that one open port is enough",
    "network.mdns": "find members of the run on the same LAN, and be found by them",
    "network.upnp": "ask the home router by UPnP, NAT-PMP or PCP to let others call both ports",
    "network.hivemind_port": "TCP port of hivemind, in runs with that engine; 0: the system"
    " chooses one",
    "network.join": "multiaddrs of nodes already in the swarm, or /dnsaddr/NAME for those in DNS",
    "network.advertise": "multiaddrs at which others reach this node, where they differ from the"
    " listening address (NAT, port forwarding)",
    "network.min_connections": "connections to keep, where that many nodes exist",
    "network.relay": "whether this node passes bytes on between members that routers keep apart",
    "network.relay_mbps": "the most that this node relays, in Mbit/s; 0: no cap",
    "worker.device": "auto, cpu, cuda, one GPU: cuda:1, or several: cuda:0,cuda:1",
    "worker.threads": "CPU threads for training; 0: one less than the processors",
    "worker.compile": "compile the model with torch.compile: faster steps, minutes at the start",
    "worker.batch_part": "the most samples computed at once; 0 lets the node measure it",
    "worker.nice": "0 to 19; a higher value leaves more of the CPU to other programs",
    "worker.precision": "float32 or bfloat16, for the model's arithmetic; what nodes exchange does"
    " not depend on it",
    "worker.allow_custom_task": "run the local code that a run names as module:Class; set true only"
    " for runs you trust",
    "worker.data_folders": "folders that a run's task may read; empty: it reads no files of yours",
    "worker.load_timeout_s": "seconds a task may take to load; then its worker is restarted, a few"
    " times",
    "limits.hours": "hours in which to train, in local time: 22:00-07:00, or mon-fri 18:00-08:00,"
    " sat, sun; empty: any",
    "limits.idle_minutes": "train only when nobody used keyboard or mouse for this long; 0: always",
    "limits.on_battery": "train on battery too",
    "limits.temperature_c": "pause above this temperature of the warmest processor, in C; 0: never",
    "limits.power_w": "pause while the device draws more in the mean of a minute, in W; 0: never",
    "limits.upload_mbps": "the most of the uplink for gradients and models, in Mbit/s; 0: all",
    "limits.download_mbps": "the same for the downlink, in Mbit/s; 0: all",
    "limits.disk_gb": "pause while the home holds more, in GB; older checkpoints get half of it; 0:"
    " no limit",
    "limits.memory_gb": "the most memory of the worker, on the GPU where it uses one, in GB; 0: no"
    " limit",
    "disk.full_state_s": "seconds between full states on disk; results of rounds bridge the time"
    " between them",
    "disk.gb_per_hour": "GB to write in an hour; above that, full states become rarer; 0: no limit",
    "disk.keep_gb": "GB for older checkpoints: one per hour for a day, one per day for a week, on"
    " every branch; the last 3 always stay",
    "worker.evaluation_share": "share of the time that scoring the model on held-out data may take;"
    " 0: none",
    "observer.host": "address of the page; any but loopback shows it to others",
    "observer.port": "port of the page; 0: the system chooses one",
    "observer.hosts": "more host names under which browsers may open the page",
    "observer.origins": "origins whose pages may read the API, such as https://example.org",
    "observer.history_mb": "MB for the history of rounds and events on disk; 0: none",
    "observer.reports": "accept usage reports as a Plumise-style oracle does (POST /api/v1/report"
    " and /api/v1/metrics/report)",
    "observer.reference": "a JSON file with a held-out loss over time to draw beside the swarm's;"
    " empty: none",
    "page.enabled": "whether hypergpud start serves the page of its node, to this machine only",
    "page.port": "port of that page; where a program uses it, the next free one; 0: the system"
    " chooses one",
    "chain.rpc": "JSON-RPC endpoints of the run's chain, tried in order; empty: train unpaid",
    "chain.confirmations": "blocks on top of a transaction before it counts as settled",
    "chain.heartbeat_s": "seconds between heartbeats; a third of the chain's own timeout",
    "oracle.url": "an oracle that also gets reports of certified work; empty: none",
    "oracle.legacy": "use the oracle's older API, /api/v1/report",
    "inference.model": "a model to serve beside training: as MODEL of hypergpud serve; empty: none",
    "inference.layers": "its layers, A:B or a number of them; empty: all",
    "inference.cache_tokens": "tokens in the caches of all generations; 0: four times the model's"
    " context",
}
