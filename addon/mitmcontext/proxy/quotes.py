"""What mitmproxy quotes in its own log: the bytes of heads that have no end, or cannot be read.

Keys stand there like everything else, so the quotations are left out.
"""

from __future__ import annotations

import logging
import re
from typing import Final

# It logs by this name whatever happens on connections.
_LOG: Final = logging.getLogger("mitmproxy.proxy.server")
# Bytes as Python writes them.
_QUOTED: Final = re.compile(r"""\bb(?:'(?:[^'\\]++|\\.)*+'|"(?:[^"\\]++|\\.)*+")""", re.DOTALL)
_INSTEAD: Final = "[bytes, left out by mitmcontext]"


def leave_out() -> None:
    """Leave quotations out from now on."""
    _LOG.addFilter(_unquoted)


def quote_again() -> None:
    """Leave them in again, as long as another load of the addon does not ask for it."""
    _LOG.removeFilter(_unquoted)


def _unquoted(record: logging.LogRecord) -> bool:
    # What is written with arguments would be put together later; mitmproxy writes whole messages.
    if isinstance(record.msg, str) and not record.args:
        record.msg = _QUOTED.sub(_INSTEAD, record.msg)
    return True
