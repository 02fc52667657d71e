"""What is left of recorded conversations when they are condensed: the benchmark's parts.

probes.py       the recordings, and what later turns need of earlier ones
tally.py        how much of it is left
baselines.py    crude ways to make a history shorter
per_request.py  each request condensed on its own
policies.py     what one turn after the other becomes
sticky.py       every turn of every conversation under a policy
shown.py        tables and a picture
"""
