"""The native engine: certified rounds of local training and averaging.

    NativeEngine (engine.py)          composes, starts and ends the parts
      EngineContext, NodePorts        the run, the node's identity, its ports (engine_context.py)
      BeaconBuilder                   the node's beacons, and its replies about certificates
      EventQueue (rounds/)            the events that wait for the round machine
      PeerParts (parts.py)            the parts that exist before the network starts
        Lineage, Members, Follower,   certificates, peers, gossip, messages, states (daemon/swarm)
        Messenger, StateServer
        MessageTranslator (rounds/)   turns messages into events
        DataPlane (exchange/)         moves parts, sums and results of the current view
        Auditor, FraudProofs (audit/) check sums, and keep proofs of wrong sums
      ModelParts (parts.py)           the parts that exist once the trainer has described the model
        StateStore (state/)           anchor, ledger, views and chain, in memory and on disk
        Downloads, ForkChoice,        choose the next state, get it, and move there (state/)
        StateSync
        TrainerLink (training/)       starts the trainer, and collects its work
      Stage (stage.py)                what the peer parts ask: first Starting, then RoundLoop
      RoundLoop (rounds/)             steps protocol/round with one event after the other
        ActionDispatcher              carries out the machine's actions
          RoundExecutor               does what takes time: offer, adopt, fetch, merge
        RoundLog                      records phases and certificates in the journal

Data flows one way: peer, MessageTranslator, EventQueue, round machine, ActionDispatcher, parts. The
parts report what they finish as events. `protocol/planning` chooses the groups; `protocol/codec`
defines the codecs.
"""
