"""Planning: who averages with whom in a round, as a pure function of offers and rules.

plan.py                the plan: made from offers, made again by everyone who carries it out, read
                       by everyone else
group_choice.py        the choice: which groups a round gets. To change how the group size is
                       chosen, change this file.
unmeasured_choice.py   the choice while too little of the network is measured to predict anything
choice_reasons.py      the sentence that a plan gives for its choice
group_proposals.py     the candidates: groups of members that are near each other
paths.py               which members wait because they have no path to another one
time_model.py          the prediction: how long a round takes with given groups
group_size_history.py  what a plan leaves for the next one, so that group sizes do not flap

A choice is made in this order: `plan.make_plan` takes the offers and asks the run's rules
(`protocol/rules/registry.py`) for `group_choice.choose`. That function lists possible numbers of
groups, takes candidates for each from `group_proposals`, estimates each with `time_model`, and
compares.

Everyone who receives a plan makes it again and compares. So planning uses only integers and the
four operations on floats, which give the same result on every machine. A released version of the
rules never changes: write a changed choice as a new function beside the old one and register it
under the next version. `tests/protocol/rules/test_pins.py` fails if a released version computes
something else.

To try a choice, run `pytest tests/protocol/planning`, then compare it on simulated networks with
`hypergpud simulate network`.
"""
