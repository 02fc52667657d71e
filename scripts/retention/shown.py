"""The figures as tables and as a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from retention.probes import Json

_CELLS = ("lines", "identifiers", "own words")


def said_of(result: Json) -> Iterator[str]:
    """The figures as tables."""
    if "per request" in result:
        yield (
            f"{'per request':22} {'policy':24} {'asked':>5} {'tokens':>6}"
            + "".join(f"{cell + ' all/far':>22}" for cell in _CELLS)
            + f"{'ms p50/p95':>14}"
        )
        for row in result["per request"]:
            yield _row(row, f"{row['asked for']:5.2f}") + f"{_times(row):>14}"
        yield ""
    if "sticky" in result:
        yield (
            f"{'sticky':22} {'policy':24} {'window':>6} {'tokens':>6}"
            + "".join(f"{cell + ' all/far':>22}" for cell in _CELLS)
            + f" {'typed':>5} {'cost':>5} {'steps':>5} {'unfit':>9} {'ref':>3} {'odd':>3}"
            + (f" {'chk':>3} {'small':>5} {'ms p50/p95':>12}")
        )
        for row in result["sticky"]:
            yield _row(row, f"{row['window']:6}") + (
                f" {row.get('typed words', 1):5.3f} {row['cost']:5.3f} {row['steps']:5}"
                f" {row['did not fit']:4}/{row['that could']:4} {row['refused']:3}"
                f" {row['unexplained breaks']:3} {row['checks failed']:3}"
                f" {row['freed too little']:5} {_times(row):>12}"
            )


def _row(row: Json, asked: str) -> str:
    cells = "".join(
        f"{_share(row, cell) + '/' + _share(row, f'{cell}, far'):>22}" for cell in _CELLS
    )
    return f"{row['corpus']:22} {row['policy']:24} {asked} {row['tokens']:6.3f}{cells}"


def _share(row: Json, name: str) -> str:
    return f"{row[name]:.3f}" if name in row else "-"


def _times(row: Json) -> str:
    return f"{row['ms, median']:.0f}/{row['ms, p95']:.0f}" if row.get("ms, p95") else "-"


_COLOURS = ("#1b6ca8", "#c23b22", "#7a7a7a", "#4f9d4f")


def picture(rows: Sequence[Json]) -> str:
    """An SVG of lines retained against tokens kept, one curve for each corpus and policy."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if "lines" in row:
            curves[row["corpus"], row["policy"]].append((row["tokens"], row["lines"]))
    pieces = [
        (
            '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="520" '
            'font-family="sans-serif" font-size="12"><rect width="760" height="520" fill="#fff"/>'
        )
    ]
    for tick in range(11):
        at = tick / 10
        x, y = 60 + 480 * at, 470 - 440 * at
        pieces.append(f'<path d="M{x} 30V470M60 {y}H540" stroke="#ddd"/>')
        pieces.append(
            f'<text x="{x - 8}" y="488">{at:.1f}</text><text x="34" y="{y}">{at:.1f}</text>'
        )
    pieces.append(
        '<text x="240" y="508">tokens kept</text><text x="10" y="20">lines retained</text>'
    )
    corpora = list(dict.fromkeys(corpus for corpus, _ in curves))
    policies = list(dict.fromkeys(policy for _, policy in curves))
    for number, ((corpus, policy), points) in enumerate(curves.items()):
        colour = _COLOURS[policies.index(policy) % len(_COLOURS)]
        dash = "" if corpora.index(corpus) == 0 else ' stroke-dasharray="5 4"'
        places = [(60 + 480 * x, 470 - 440 * y) for x, y in sorted(points)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        pieces.append(f'<polyline points="{line}" fill="none" stroke="{colour}"{dash}/>')
        pieces += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        pieces.append(f'<text x="552" y="{50 + 34 * number}" fill="{colour}">{policy}</text>')
        pieces.append(f'<text x="552" y="{64 + 34 * number}" fill="#555">{corpus}</text>')
    return "\n".join([*pieces, "</svg>\n"])
