"""A strict provider on the loopback: the other end that tests, demo and benchmarks talk to.

It imitates api.anthropic.com and api.openai.com over real TLS, refuses what they refuse in their
own words, counts with a tokenizer of its own and keeps the exact bytes of what it was sent. It
shares no code with the addon, so that neither can hide the other's mistakes.
"""
