"""The native engine: certified rounds of local training and averaging.

    NativeEngine (engine.py)          composes the parts, starts and ends them
      PeerParts (parts.py)            exist before the network starts
        Lineage, Members, Follower,   daemon/swarm: certificates, peers, gossip, messages, states
        Messenger, StateServer
        MessageTranslator (rounds/)   messages -> events
        DataPlane (exchange/)         parts, sums and results of the current view
        Auditor, FraudProofs (audit/) checks of sums, proofs of wrong ones
      Stage (stage.py)                what peers may ask: Starting, then RoundLoop
      RoundLoop (rounds/)             steps protocol/round with one event after the other
        EventQueue                    the events that wait
        ActionDispatcher              does what the machine asks for
          RoundExecutor               what takes time: offer, adopt, fetch, merge
        ModelParts (parts.py)         exist once the trainer has described the model
          StateStore (state/)         anchor, ledger, views and chain, in memory and on disk
          Downloads, ForkChoice,      which state to go to, and the way there
          StateSync
          TrainerLink (training/)     the trainer: collect, offer, train on

Data flows one way: peer -> MessageTranslator -> EventQueue -> machine -> ActionDispatcher -> parts,
and what the parts finish comes back as an event. To change how groups are chosen, see
`protocol/planning`; to add a codec, `protocol/codec`.
"""
