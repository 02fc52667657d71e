"""What mitmproxy quotes in its own log: the bytes of heads that have no end, or cannot be read.

Keys stand there like everything else, so the quotations are left out.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from mitmcontext.proxy.guard import is_the_end

# It logs by this name whatever happens on connections.
_LOG: Final = logging.getLogger("mitmproxy.proxy.server")
# Bytes as Python writes them.
_QUOTED: Final = re.compile(r"""\bb(?:'(?:[^'\\]++|\\.)*+'|"(?:[^"\\]++|\\.)*+")""", re.DOTALL)
_INSTEAD: Final = "[bytes, left out by mitmcontext]"
_NO_WORDS: Final = "[a message that could not be looked through, left out by mitmcontext]"


def leave_out() -> None:
    """Leave quotations out from now on."""
    _LOG.addFilter(_unquoted)


def quote_again() -> None:
    """Leave them in again, as long as another load of the addon does not ask for it."""
    _LOG.removeFilter(_unquoted)


def _unquoted(record: logging.LogRecord) -> bool:
    """Let a message pass without its quotations, and no fault out.

    mitmproxy logs in the midst of its work on a connection: an error here would end that work, and
    leave a client without an answer.
    """
    try:
        record.msg = _without_quotations(record)
    except BaseException as error:
        if is_the_end(error):
            raise
        # Rather no words than a key among them.
        record.msg, record.args = _NO_WORDS, ()
    return True


def _without_quotations(record: logging.LogRecord) -> object:
    # What is written with arguments would be put together later; mitmproxy writes whole messages.
    if isinstance(record.msg, str) and not record.args:
        return _QUOTED.sub(_INSTEAD, record.msg)
    return record.msg
