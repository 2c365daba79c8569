"""Stories of serving: stages that die, hang, lie and fill up in the middle of answers.

stage_world.py  a swarm of fake stages in virtual time, and a client that generates
story.py        what a story is, and how its outcome is judged
stories.py      the named stories, and a random one for --fuzz
stranger.py     stories of a client that repeats steps and skips positions
output.py       plays them for `hypergpud simulate --inference`
"""
