"""What an image costs, by each provider's own formula, from its width and height.

Sources: the providers' documentation (OpenAI's and Mistral's to the letter), and recorded requests
(Claude's and Gemini's, where the documented rules of thumb are off by some percent).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mitmcontext.values import Picture

# A link, or a format that we do not know: taken for a large screenshot.
ASSUMED: Final = (1920, 1080)


@dataclass(frozen=True, slots=True)
class Price:
    """A formula and its two numbers; what these are is up to the formula.

    `flat`: `a` tokens each. `tiles`: `a` and `b` for each tile. `patches`: `a` for each patch and
    `b`. `area`: at most `a` pixels on the long side and `b` tokens. `crops`: `a` for each crop.
    `rows`: at most `a` pixels on a side, patches of `b`. `squares`: with sides of `a`
    pixels, and `b` tokens. `described`: `a` tokens, and `b` for each
    character of what describes it.
    """

    formula: str
    a: float = 0.0
    b: float = 0.0

    def tokens(self, picture: Picture, description: int = 0) -> float:
        """What the image costs in tokens; `description` is in characters."""
        if self.formula == "described":
            return self.a + self.b * description
        width, height = picture.width, picture.height
        if not (width and height):
            width, height = ASSUMED
        return _FORMULAS[self.formula](width, height, picture.detail, self.a, self.b)


def _flat(width: int, height: int, detail: str, tokens: float, _: float) -> float:
    return tokens


def _tiles(width: int, height: int, detail: str, base: float, tile: float) -> float:
    """OpenAI: fitted into 2048 x 2048, then to a shorter side of 768; tiles of 512."""
    if detail == "low":
        return base
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    across, down = (_parts(side * scale, 512) for side in (width, height))
    return base + tile * across * down


def _patches(width: int, height: int, detail: str, factor: float, more: float) -> float:
    """OpenAI's later models: patches of 32 x 32, scaled down to 1,536 of them."""
    most = 1536
    across, down = _parts(width, 32), _parts(height, 32)
    if across * down > most:
        scale = math.sqrt(32 * 32 * most / (width * height))
        fits = [math.floor(side * scale / 32) / (side * scale / 32) for side in (width, height)]
        scale *= min(fit for fit in fits if fit) if any(fits) else 1.0
        across, down = _parts(width * scale, 32), _parts(height * scale, 32)
    return math.ceil(min(across * down, most) * factor) + more


def _area(width: int, height: int, detail: str, longest: float, most: float) -> float:
    """Claude: fitted by its long side and its area, a token for each 28 x 28 pixels and 3."""
    scale = min(1.0, longest / max(width, height), math.sqrt(most * 750 / (width * height)))
    return _parts(width * scale, 28) * _parts(height * scale, 28) + 3


def _crops(width: int, height: int, detail: str, crop: float, _: float) -> float:
    """Gemini 2.0: a small image is one crop; a larger one is cut into several and shown whole.

    Google scales what is larger than 3,072 pixels down to that.
    """
    if max(width, height) <= 384:
        return crop
    scale = min(1.0, 3_072 / max(width, height))
    across, down = width * scale, height * scale
    side = min(max(min(across, down) // 1.5, 256), 768)
    return crop * (_parts(across, side) * _parts(down, side) + 1)


def _rows(width: int, height: int, detail: str, longest: float, patch: float) -> float:
    """Mistral: patches, with a token at the end of each row of them."""
    scale = min(1.0, longest / max(width, height))
    across, down = (_parts(side * scale, patch) for side in (width, height))
    return (across + 1) * down


def _squares(width: int, height: int, detail: str, side: float, more: float) -> float:
    """Qwen: as many squares as fit best, at most 16,384 of them."""
    across, down = (max(1, round(length / side)) for length in (width, height))
    return min(across * down, 16_384) + more


def _parts(length: float, part: float) -> int:
    # The tiny amount keeps the noise of a scaled side from becoming a part.
    return max(1, math.ceil(length / part - 1e-9))


_FORMULAS: Final[dict[str, Callable[[int, int, str, float, float], float]]] = {
    "flat": _flat,
    "tiles": _tiles,
    "patches": _patches,
    "area": _area,
    "crops": _crops,
    "rows": _rows,
    "squares": _squares,
}
