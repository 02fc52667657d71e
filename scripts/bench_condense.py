"""What condensing keeps and what it costs, over recorded conversations, beside crude baselines.

    ./scripts/bench condense [--data FOLDER] [--sample N] [--birth] [--json] [--plot FILE]

Two kinds of work. *Per request*: each request of 8,000 tokens or more at which a probe is used is
condensed on its own to a share of its tokens. *Sticky*: every turn of every conversation goes
through the pipeline and a ledger, as it would through the proxy, for each window; with `--birth`
once more with `reduce_at_birth`.

A probe is a string that a later tool call uses and that until then stood only in tool results:
whole lines, or identifiers (the files `probes_*.jsonl.gz` of the folder). A list of words satisfies
identifiers, so neither counts without the other. Own words are lines that the agent uses again from
calls or prose of its own. "Far": last seen five or more results earlier. Cost is relative to no
rewriting: 0.1 for a token that an earlier request began with, 1.25 for any other; nothing expires.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "addon"), str(CHECKOUT / "scripts")]

from replay import CORPORA, DATA  # noqa: E402
from retention.per_request import per_request  # noqa: E402
from retention.policies import BIRTH, POLICIES  # noqa: E402
from retention.probes import Json, recorded  # noqa: E402
from retention.shown import picture, said_of  # noqa: E402
from retention.sticky import sticky  # noqa: E402

WINDOWS = (32_000, 64_000)
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)


def main(arguments: Sequence[str]) -> int:
    """Read the arguments, measure, say what came out."""
    parser = argparse.ArgumentParser(
        prog="./scripts/bench condense",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA))
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="N of each corpus")
    parser.add_argument("--only", choices=("request", "sticky"))
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--windows", nargs="+", type=int, default=list(WINDOWS))
    usual = [policy for policy in POLICIES if policy != BIRTH]
    parser.add_argument("--policies", nargs="+", default=usual, choices=list(POLICIES))
    parser.add_argument("--birth", action="store_true", help=f"the policy {BIRTH!r} beside them")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="an SVG of retention and tokens")
    asked = parser.parse_args(arguments)
    if not asked.data.is_dir():
        print(f"There are no recorded conversations in {asked.data}.", file=sys.stderr)
        return 2
    found = list(recorded(asked.data, asked.corpora, asked.sample))
    result: Json = {}
    if asked.only in (None, "request"):
        result["per request"] = per_request(found, asked.shares)
    if asked.only in (None, "sticky"):
        policies = dict.fromkeys([*asked.policies, *([BIRTH] if asked.birth else [])])
        result["sticky"] = sticky(found, asked.windows, list(policies), not asked.json)
    print(json.dumps(result, indent=1) if asked.json else "\n".join(said_of(result)))
    if asked.plot:
        rows = result.get("per request") or result["sticky"]
        asked.plot.write_text(picture(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
