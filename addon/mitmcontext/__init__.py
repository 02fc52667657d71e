"""mitmcontext keeps every LLM tool's requests inside the model's context window.

As a mitmproxy addon it is started with `mitmdump -s addon/context.py`. What it is made of can be
used on its own: `wire` reads a provider's request, `tokens` and `models` say how large it is and
how much the model can take, `condense` plans what to shorten, `pipeline` puts these together.
"""

__version__ = "0.1.0"
