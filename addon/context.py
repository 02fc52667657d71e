"""What mitmproxy loads: `mitmdump -s addon/context.py`.

mitmproxy watches this file alone. Touch it, and the whole package is loaded anew, while requests
in flight finish on the code that they began with. Where the new code does not load, the old one
goes on: without it every conversation that was condensed would go out whole.
"""

import logging
import sys


def _ours() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "mitmcontext"]


_old = {name: sys.modules.pop(name) for name in _ours()}
try:
    from mitmcontext.proxy.addon import ContextAddon
except Exception as _error:
    if not _old:
        raise
    for _name in _ours():
        del sys.modules[_name]
    sys.modules.update(_old)
    from mitmcontext.proxy.addon import ContextAddon

    logging.getLogger("mitmcontext").error(
        "mitmcontext: the new code does not load (%s); the old one goes on", type(_error).__name__
    )
# Else the old modules would stay for as long as this script does.
del _old

addons = [ContextAddon()]
