"""What mitmproxy loads: `mitmdump -s addon/context.py`.

mitmproxy watches this file alone. Touch it, and the whole package is loaded anew, while requests
in flight finish on the code that they began with.
"""

import sys

for _name in [name for name in sys.modules if name.partition(".")[0] == "mitmcontext"]:
    del sys.modules[_name]

from mitmcontext.proxy.addon import ContextAddon  # noqa: E402 - the purge comes first

addons = [ContextAddon()]
