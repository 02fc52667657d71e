"""Condensing with a model: what to ask, and what to make of the answer. Nothing here asks anybody.

`selection` chooses a strategy, `plan` the stretch and its questions (`transcript` and `prompts` are
their words), `gate` judges an answer, `note` is what takes the stretch's place, and `fold` lays it
into the conversation before smart_truncation does the rest.
"""
