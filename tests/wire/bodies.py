"""JSON as the tests of all APIs build it."""

from __future__ import annotations

import json
from typing import Any


def dumped(value: Any) -> bytes:
    """A value as many clients write it, with text beyond ASCII as it is."""
    return json.dumps(value, ensure_ascii=False).encode()
