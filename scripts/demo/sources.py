"""Source files of a program that does not exist: a harbour's booking service and its web page.

Everything is written by templates from one seed, so the same files come out each time. They are
long and varied enough to be read, searched, edited and tested by the agent of the session.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from string import Template


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that a module is about."""

    module: str
    noun: str
    plural: str
    fields: tuple[tuple[str, str], ...]
    states: tuple[str, ...]


THINGS = (
    Thing(
        "berths",
        "berth",
        "berths",
        (("number", "int"), ("length_m", "float"), ("depth_m", "float"), ("quay", "str")),
        ("free", "reserved", "occupied", "closed"),
    ),
    Thing(
        "bookings",
        "booking",
        "bookings",
        (
            ("vessel_id", "str"),
            ("berth_number", "int"),
            ("arrives", "datetime"),
            ("leaves", "datetime"),
        ),
        ("asked", "confirmed", "moored", "departed", "cancelled"),
    ),
    Thing(
        "vessels",
        "vessel",
        "vessels",
        (("imo", "str"), ("name", "str"), ("length_m", "float"), ("draught_m", "float")),
        ("expected", "at_anchor", "alongside", "sailed"),
    ),
    Thing(
        "tides",
        "tide",
        "tides",
        (("station", "str"), ("turns_at", "datetime"), ("height_m", "float"), ("rising", "bool")),
        ("predicted", "observed", "corrected"),
    ),
    Thing(
        "invoices",
        "invoice",
        "invoices",
        (("booking_id", "str"), ("net_cents", "int"), ("tax_cents", "int"), ("due", "date")),
        ("draft", "sent", "paid", "overdue", "written_off"),
    ),
    Thing(
        "pilots",
        "pilot",
        "pilots",
        (("badge", "str"), ("name", "str"), ("licence_m", "float"), ("rests_until", "datetime")),
        ("available", "on_board", "resting"),
    ),
    Thing(
        "notices",
        "notice",
        "notices",
        (("subject", "str"), ("language", "str"), ("valid_from", "datetime"), ("priority", "int")),
        ("written", "translated", "published", "withdrawn"),
    ),
    Thing(
        "cargo",
        "consignment",
        "consignments",
        (("bill", "str"), ("weight_kg", "int"), ("hazard_class", "str"), ("reefer", "bool")),
        ("announced", "landed", "held", "released"),
    ),
)

_PYTHON_HEAD = Template('''"""Everything about $plural: reading them and changing them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from quayside.$other import $Other
from quayside.errors import Conflict, Refused, Unknown$Noun
from quayside.storage import Session, rows

log = logging.getLogger(__name__)

STATES = ($states)
PAGE = $page
GRACE = timedelta(minutes=$grace)


@dataclass(frozen=True)
class $Noun:
    """One $noun as the harbour office knows it."""

    id: str
$fields
    state: str = "$first"
    changed_by: str = ""
''')

_PYTHON_PARTS = (
    Template('''
def find_$noun(session: Session, id_: str) -> $Noun:
    """The $noun with this id. Raises Unknown$Noun if there is none."""
    found = session.one("select * from $plural where id = ?", id_)
    if found is None:
        log.info("no $noun %s", id_)
        raise Unknown$Noun(id_)
    return ${noun}_from_row(found)
'''),
    Template('''
def ${noun}_from_row(row: dict[str, object]) -> $Noun:
    """Read a $noun from a row of the database; columns that we do not know are left out."""
    known = {name: row[name] for name in $Noun.__dataclass_fields__ if name in row}
    if known.get("state") not in STATES:
        raise ValueError(f"$noun {row.get('id')}: no such state {row.get('state')!r}")
    return $Noun(**known)
'''),
    Template('''
def ${plural}_by_$field($plural: Iterable[$Noun]) -> dict[object, list[$Noun]]:
    """Sort $plural into heaps of equal $field, each heap in the order in which it came."""
    heaps: dict[object, list[$Noun]] = {}
    for $noun in $plural:
        heaps.setdefault($noun.$field, []).append($noun)
    return heaps
'''),
    Template('''
def may_become($noun: $Noun, state: str) -> bool:
    """Whether a $noun may go over into a state: forwards by one, or out of "$first" anywhere."""
    if state not in STATES:
        return False
    here, there = STATES.index($noun.state), STATES.index(state)
    return there == here + 1 or $noun.state == "$first"
'''),
    Template('''
def change_state(session: Session, $noun: $Noun, state: str, by: str) -> $Noun:
    """Move a $noun on and write down who did it. Raises Refused where that is not allowed."""
    if not may_become($noun, state):
        raise Refused(f"a $noun cannot go from {$noun.state} to {state}")
    changed = replace($noun, state=state, changed_by=by)
    session.run("update $plural set state = ?, changed_by = ? where id = ?", state, by, $noun.id)
    log.info("$noun %s: %s -> %s by %s", $noun.id, $noun.state, state, by)
    return changed
'''),
    Template('''
def page_of_$plural(session: Session, number: int, *, state: str = "") -> Sequence[$Noun]:
    """One page of $plural, newest first, counted from 1."""
    if number < 1:
        raise ValueError("pages are counted from 1")
    condition, values = ("where state = ?", [state]) if state else ("", [])
    found = session.all(
        f"select * from $plural {condition} order by rowid desc limit ? offset ?",
        *values, PAGE, (number - 1) * PAGE,
    )
    return [${noun}_from_row(row) for row in found]
'''),
    Template('''
def problems_with($noun: $Noun, *, now: datetime) -> Iterator[str]:
    """Say in sentences what is wrong with a $noun; nothing if it is fit to be saved."""
    if not $noun.id.strip():
        yield "a $noun needs an id"
    if $noun.state not in STATES:
        yield f"there is no state {$noun.state!r}"
    if not $noun.$field and $noun.$field != 0:
        yield "$field is missing"
    if $noun.changed_by == "system" and now.hour not in range(24):
        yield "the night run may not change a $noun"
'''),
    Template('''
def total_$field($plural: Iterable[$Noun], *, state: str = "$last") -> float:
    """Add up the $field of all $plural in one state."""
    total = 0.0
    for $noun in $plural:
        if $noun.state != state:
            continue
        try:
            total += float($noun.$field)
        except (TypeError, ValueError):
            log.warning("$noun %s has an odd $field: %r", $noun.id, $noun.$field)
    return round(total, 3)
'''),
    Template('''
def ${noun}_to_json($noun: $Noun) -> dict[str, object]:
    """What the web page gets to see: times in UTC, no names of colleagues."""
    seen = {
        "id": $noun.id,
        "state": $noun.state,
        "$field": $noun.$field,
        "$second": $noun.$second,
    }
    for name, value in seen.items():
        if isinstance(value, datetime):
            seen[name] = value.isoformat(timespec="minutes")
    return seen
'''),
    Template('''
def merge_$plural(mine: Sequence[$Noun], theirs: Sequence[$Noun]) -> list[$Noun]:
    """Bring two lists together. Of two with one id the one further along its states wins."""
    best: dict[str, $Noun] = {$noun.id: $noun for $noun in mine}
    for $noun in theirs:
        known = best.get($noun.id)
        if known is None or STATES.index($noun.state) > STATES.index(known.state):
            best[$noun.id] = $noun
    return sorted(best.values(), key=lambda $noun: ($noun.state, $noun.id))
'''),
    Template('''
class ${Noun}Watch:
    """Tells listeners about $plural that have not moved for longer than the time of grace."""

    def __init__(self, session: Session, grace: timedelta = GRACE) -> None:
        self.session = session
        self.grace = grace
        self.told: set[str] = set()

    def look(self, now: datetime) -> list[$Noun]:
        """The $plural that are late and that nobody has been told about yet."""
        late = []
        for row in rows(self.session, "$plural", since=now - self.grace):
            $noun = ${noun}_from_row(row)
            if $noun.id in self.told or $noun.state == "$last":
                continue
            self.told.add($noun.id)
            late.append($noun)
        return late

    def forget(self, id_: str) -> None:
        """A $noun has moved, so it may be late again."""
        self.told.discard(id_)
'''),
    Template('''
def ${other}_of($noun: $Noun, all_$other: Iterable[$Other]) -> list[$Other]:
    """The $other that belong to a $noun. A missing link is logged, not raised."""
    found = [item for item in all_$other if item.id == getattr($noun, "$field", None)]
    if not found:
        log.debug("$noun %s has no $other", $noun.id)
    return found
'''),
)

_TYPESCRIPT_HEAD = Template("""// The $plural of the board: how they come and how they are shown.

import { fetchJson, ApiError } from "./http";
import type { $Other } from "./$other";

export type ${Noun}State = $states;

export interface $Noun {
  readonly id: string;
  readonly state: ${Noun}State;
$fields
}

const PAGE = $page;
""")

_TYPESCRIPT_PARTS = (
    Template("""
export async function load$Plural(page: number, signal?: AbortSignal): Promise<$Noun[]> {
  if (page < 1) {
    throw new RangeError("pages are counted from 1");
  }
  const answer = await fetchJson(`/api/$plural?page=$${page}&size=$${PAGE}`, { signal });
  if (!Array.isArray(answer.$plural)) {
    throw new ApiError("the service sent no list of $plural");
  }
  return answer.$plural.map(parse$Noun);
}
"""),
    Template("""
function parse$Noun(value: Record<string, unknown>): $Noun {
  const { id, state } = value;
  if (typeof id !== "string" || typeof state !== "string") {
    throw new ApiError(`not a $noun: $${JSON.stringify(value).slice(0, 80)}`);
  }
  return { ...(value as unknown as $Noun), id, state: state as ${Noun}State };
}
"""),
    Template("""
export function label${Noun}(item: $Noun, locale = "en"): string {
  const parts = [item.id, String(item.$field)];
  if (item.state === "$last") {
    parts.push(new Intl.ListFormat(locale).format([item.state]));
  }
  return parts.filter((part) => part.length > 0).join(" \\u00b7 ");
}
"""),
    Template("""
export function group${Plural}(items: readonly $Noun[]): Map<${Noun}State, $Noun[]> {
  const groups = new Map<${Noun}State, $Noun[]>();
  for (const item of items) {
    const group = groups.get(item.state) ?? [];
    group.push(item);
    groups.set(item.state, group);
  }
  return groups;
}
"""),
    Template("""
export function reduce${Plural}(state: ${Noun}Board, action: ${Noun}Action): ${Noun}Board {
  switch (action.type) {
    case "$plural/loaded":
      return { ...state, items: action.items, loading: false, error: null };
    case "$plural/moved": {
      const items = state.items.map((item) =>
        item.id === action.id ? { ...item, state: action.to } : item,
      );
      return { ...state, items };
    }
    case "$plural/failed":
      return { ...state, loading: false, error: action.message };
    default:
      return state;
  }
}
"""),
    Template("""
export interface ${Noun}Board {
  readonly items: readonly $Noun[];
  readonly loading: boolean;
  readonly error: string | null;
}

export type ${Noun}Action =
  | { readonly type: "$plural/loaded"; readonly items: readonly $Noun[] }
  | { readonly type: "$plural/moved"; readonly id: string; readonly to: ${Noun}State }
  | { readonly type: "$plural/failed"; readonly message: string };
"""),
    Template("""
export function compare${Plural}(left: $Noun, right: $Noun): number {
  // Equal states keep the order of the service, which is newest first.
  if (left.state !== right.state) {
    return left.state < right.state ? -1 : 1;
  }
  return String(left.$second).localeCompare(String(right.$second));
}
"""),
)

_TEST_PARTS = (
    Template("""
def test_a_${noun}_is_found_by_its_id(session: Session) -> None:
    session.add("$plural", id="$sample", state="$first")

    assert find_$noun(session, "$sample").state == "$first"
"""),
    Template("""
def test_an_unknown_${noun}_is_an_error_of_its_own(session: Session) -> None:
    with pytest.raises(Unknown$Noun, match="$sample"):
        find_$noun(session, "$sample")
"""),
    Template("""
@pytest.mark.parametrize("state", ["$first", "$last"])
def test_a_${noun}_moves_forward_only(session: Session, state: str) -> None:
    $noun = make_$noun(state="$last")

    assert not may_become($noun, state)
"""),
    Template("""
def test_merging_keeps_the_${noun}_that_is_further_along() -> None:
    early, late = make_$noun(state="$first"), make_$noun(state="$last")

    assert merge_$plural([early], [late]) == [late]
    assert merge_$plural([late], [early]) == [late]
"""),
    Template("""
def test_pages_of_${plural}_do_not_overlap(session: Session) -> None:
    for number in range(45):
        session.add("$plural", id=f"$sample-{number}", state="$first")
    first, second = page_of_$plural(session, 1), page_of_$plural(session, 2)

    assert not {item.id for item in first} & {item.id for item in second}
"""),
    Template("""
def test_${plural}_without_${field}_are_complained_about(now: datetime) -> None:
    broken = make_$noun($field="")

    assert list(problems_with(broken, now=now)) == ["$field is missing"]
"""),
)

_TYPESCRIPT_TYPES = {"int": "number", "float": "number", "bool": "boolean"}


def _values(thing: Thing, rng: random.Random) -> dict[str, str]:
    other = rng.choice([item for item in THINGS if item is not thing])
    first, second = rng.sample([name for name, _ in thing.fields], 2)
    return {
        "noun": thing.noun,
        "Noun": thing.noun.capitalize(),
        "plural": thing.plural,
        "Plural": thing.plural.capitalize(),
        "other": other.module,
        "Other": other.noun.capitalize(),
        "field": first,
        "second": second,
        "first": thing.states[0],
        "last": thing.states[-1],
        "page": str(rng.choice((20, 25, 40, 50))),
        "grace": str(rng.choice((10, 15, 20, 45))),
        "sample": f"{thing.noun[0]}-{rng.randrange(1000, 9999)}",
    }


def python_module(thing: Thing, rng: random.Random) -> str:
    """The service's module about one thing."""
    values = _values(thing, rng)
    values["states"] = ", ".join(f'"{state}"' for state in thing.states)
    values["fields"] = "\n".join(f"    {name}: {kind}" for name, kind in thing.fields)
    parts = [_PYTHON_HEAD, *rng.sample(_PYTHON_PARTS, len(_PYTHON_PARTS))]
    text = []
    for part in parts:
        values["field"], values["second"] = rng.sample([name for name, _ in thing.fields], 2)
        text.append(part.substitute(values))
    return "\n".join(text)


def python_tests(thing: Thing, rng: random.Random) -> str:
    """The tests of that module."""
    values = _values(thing, rng)
    head = Template(
        '"""How $plural behave."""\n\nfrom __future__ import annotations\n\n'
        "from datetime import datetime\n\nimport pytest\n\n"
        "from quayside.$module import *\nfrom quayside.storage import Session\n"
        "from tests.makers import make_$noun\n"
    ).substitute(values, module=thing.module)
    parts = rng.sample(_TEST_PARTS, len(_TEST_PARTS))
    return head + "\n".join(["", *(part.substitute(values) for part in parts)])


def typescript_module(thing: Thing, rng: random.Random) -> str:
    """The web page's module about one thing."""
    values = _values(thing, rng)
    values["states"] = " | ".join(f'"{state}"' for state in thing.states)
    values["fields"] = "\n".join(
        f"  readonly {name}: {_TYPESCRIPT_TYPES.get(kind, 'string')};"
        for name, kind in thing.fields
    )
    parts = [_TYPESCRIPT_HEAD, *rng.sample(_TYPESCRIPT_PARTS, len(_TYPESCRIPT_PARTS))]
    return "".join(part.substitute(values) for part in parts)


def project(rng: random.Random) -> dict[str, str]:
    """Every file of the program by its path."""
    files: dict[str, str] = {}
    for thing in THINGS:
        files[f"quayside/{thing.module}.py"] = python_module(thing, rng)
        files[f"tests/test_{thing.module}.py"] = python_tests(thing, rng)
        files[f"web/src/{thing.module}.ts"] = typescript_module(thing, rng)
    files["README.md"] = (
        "# Quayside\n\nBerth bookings for a small harbour. The service is in `quayside/`, the"
        " board for the\nquay office in `web/`. Times are UTC inside and local on the board.\n\n"
        "    make test     # the service\n    npm test      # the board\n"
    )
    return files
