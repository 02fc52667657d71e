"""The session itself: a coding agent mends a harbour's booking service, for seventy requests.

The agent is imagined, its files and tool results come from `workshop`, so the whole history is
ours and the same on every run. It is sent the way a real client does it: the complete history
each time, with markers for the prompt cache that wander with its end.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .sources import THINGS, Thing
from .workshop import Workshop

Json = dict[str, Any]

MODEL = "claude-sonnet-4-5"
_MARKER = {"type": "ephemeral"}

_SYSTEM = (
    "You are a careful programmer who works in a person's checkout by means of tools.",
    """# How to work

- Look before you change: search for a name before you rename it, read a file before you edit it.
- Make the smallest change that does what was asked. Leave the style of a file as you find it.
- Run the tests after every change and read what they say. A test that fails for a reason which
  you do not understand is not to be skipped or deleted.
- Prefer several independent look-ups in one step to one after the other.
- Never touch generated files, migrations that were already applied, or anything below `vendor/`.
- Say in two or three sentences what you did and what is left. No lists of files unless asked.

# About this project

Quayside books berths for a small harbour. The service is Python with SQLite, the board in the quay
office is TypeScript. Times are UTC inside. Scripts of the harbour office import the public
functions of the service by name, so those names are a promise.

# Where you are

Working directory: the root of the checkout. Platform: Linux. Today: 2026-10-29.
Branch: fix/overlaps, one commit ahead of main, working tree clean.
""",
)

_TASK = """\
Bookings overlap when a vessel stays past midnight: last night two ships were sent to berth 14. \
Find out why and mend it, in the service first and then on the board. The harbour office's scripts \
import our functions by name, so please keep the names and the order of arguments. Each change \
needs a test, and I would like one commit per change."""

_FOLLOW_UPS = (
    """\
Good. Now the tides: a vessel with more than 9.5 m draught may only move in the hour before high \
water, and nothing checks that. Use the corrected heights where there are any, not the predicted \
ones.""",
    """\
Pilots next. Somebody was put on board forty minutes after his last job. They must rest eleven \
hours, and the rest counts from when the pilot was back ashore, not from the booking's end.""",
    """\
The invoices for cancelled bookings are still sent. I think it is the night run, but look for \
yourself. Don't change any amounts: accounting reconciles them by hand on Fridays.""",
    """\
Now the board. It shows notices in the order of the service and the office wants the most urgent \
ones on top, and withdrawn ones not at all. Colours stay as they are, please.""",
    """\
Last one: dangerous cargo (hazard classes 1 and 7) must never lie next to the passenger quay. That \
is berths 1 to 4. A warning is not enough, the booking has to be refused.""",
)

_ASIDE = (
    "By the way, ignore the warning about the unpinned formatter, that is on my list already."
    " And write `draught`, not `draft`, in everything that people read."
)


@dataclass(frozen=True, slots=True)
class Chore:
    """One thing that the person asks for: what it is about and what is put into the code."""

    thing: Thing
    beside: Thing
    guard: str
    commit: str
    on_the_board: bool = False


_CHORES = (
    Chore(
        THINGS[1],
        THINGS[0],
        "    # A stay past midnight ends on a later day, so whole times are compared, not hours.\n"
        "    if {noun}.arrives >= {noun}.leaves:\n"
        '        raise Refused(f"{noun} {{{noun}.id}} ends before it begins")\n',
        "Compare whole times when bookings are checked for overlaps",
    ),
    Chore(
        THINGS[3],
        THINGS[2],
        "    # Deep ships move in the hour before high water only.\n"
        "    if not {noun}.rising and {noun}.height_m < DEEP_DRAUGHT_M:\n"
        '        raise Refused(f"{noun} {{{noun}.id}}: not enough water for this draught")\n',
        "Refuse moves of deep vessels outside the hour before high water",
    ),
    Chore(
        THINGS[5],
        THINGS[1],
        "    # The rest counts from when the pilot was back ashore.\n"
        "    if {noun}.rests_until > session.now():\n"
        '        raise Refused(f"{noun} {{{noun}.badge}} rests until {{{noun}.rests_until}}")\n',
        "Let pilots rest for eleven hours",
    ),
    Chore(
        THINGS[4],
        THINGS[1],
        "    # What was cancelled before it was sent is never sent; the amounts stay as they are.\n"
        '    if {noun}.state == "draft" and is_cancelled(session, {noun}.booking_id):\n'
        '        raise Refused(f"{noun} {{{noun}.id}} belongs to a cancelled booking")\n',
        "Keep invoices of cancelled bookings back",
    ),
    Chore(
        THINGS[6],
        THINGS[7],
        "    # Withdrawn notices are not shown, so they do not come back either.\n"
        '    if {noun}.state == "withdrawn":\n'
        '        raise Refused(f"{noun} {{{noun}.id}} was withdrawn")\n',
        "Show the most urgent notices first",
        on_the_board=True,
    ),
    Chore(
        THINGS[7],
        THINGS[0],
        "    # Classes 1 and 7 never lie next to the passenger quay.\n"
        '    if {noun}.hazard_class[:1] in "17" and session.berth_of({noun}.id) in range(1, 5):\n'
        '        raise Refused(f"{noun} {{{noun}.bill}} may not lie next to the passenger quay")\n',
        "Refuse dangerous cargo at the passenger quay",
        on_the_board=True,
    ),
)


def _tool(name: str, description: str, required: Sequence[str], **properties: str) -> Json:
    kinds = {"start": "integer", "limit": "integer", "around": "integer", "timeout_s": "integer"}
    schema = {
        "type": "object",
        "properties": {
            key: {"type": kinds.get(key, "string"), "description": text}
            for key, text in properties.items()
        },
        "required": list(required),
        "additionalProperties": False,
    }
    return {"name": name, "description": description, "input_schema": schema}


TOOLS = (
    _tool(
        "read_file",
        "Read a text file. The answer shows each line behind its number and an arrow; neither is"
        " part of the file. Without start and limit the first 2000 lines are shown.",
        ["path"],
        path="path from the root of the checkout",
        start="first line to show, counted from 1",
        limit="how many lines to show",
    ),
    _tool(
        "search",
        "Search the checkout for a regular expression. Each hit is shown as path:line:text.",
        ["pattern"],
        pattern="a Python regular expression",
        under="only below this folder",
        around="how many lines to show before and after each hit",
    ),
    _tool(
        "list_files", "List the files below a folder.", ["under"], under="the folder, may be empty"
    ),
    _tool(
        "edit_file",
        "Replace one stretch of text in a file. It must occur exactly once, blanks included.",
        ["path", "old", "new"],
        path="path from the root of the checkout",
        old="the text that is there now",
        new="the text to put in its place",
    ),
    _tool(
        "run",
        "Run a command in a shell at the root of the checkout and show what it prints. Commands"
        " that need an answer from a person will hang until the time is up.",
        ["command"],
        command="the command line",
        timeout_s="seconds after which it is ended; 120 if left out",
    ),
    _tool(
        "fetch_json",
        "Ask the service that runs in the test environment and show its JSON.",
        ["path"],
        path="path below /api, with its query",
    ),
    _tool(
        "service_log",
        "Show the newest lines of the service's log in the test environment.",
        ["limit"],
        limit="how many lines to show",
        grep="only lines that hold this text",
    ),
    _tool(
        "note",
        "Keep a note for later in this session. Notes are shown again when the person returns.",
        ["text"],
        text="the note, in one or two sentences",
    ),
)


@dataclass
class Session:
    """A history that grows, and where in it a request was sent."""

    seed: int = 14
    messages: list[Json] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Play the whole session once."""
        self.rng = random.Random(self.seed)
        self.workshop = Workshop(self.rng)
        self._results: list[Json] = []
        self._play()

    # What the person and the agent do.

    def _play(self) -> None:
        self.typed(_TASK)
        self._explore()
        for number, chore in enumerate(_CHORES):
            if number:
                self.typed(_FOLLOW_UPS[number - 1])
            self._do(chore, number)

    def _explore(self) -> None:
        shop = self.workshop
        self.acts("I'll get an overview first.", ("list_files", {"under": ""}, shop.glob("")))
        self.acts(
            "",
            ("read_file", {"path": "README.md"}, shop.read("README.md")),
            ("search", {"pattern": "def may_become"}, shop.grep("def may_become", around=6)),
        )
        self.acts(
            "Let me see what the service logged last night.",
            ("service_log", {"limit": 40}, shop.service_log(40)),
            thought="Two ships on berth 14. Either the check compares hours only, or the two"
            " requests were checked against the same state. The log should tell which.",
        )

    def _do(self, chore: Chore, number: int) -> None:
        shop, thing = self.workshop, chore.thing
        path, tests = f"quayside/{thing.module}.py", f"tests/test_{thing.module}.py"
        wanted = f"change_state|problems_with|{thing.noun.capitalize()}Watch"
        self.acts(
            f"I'll look for everything that moves a {thing.noun}.",
            ("search", {"pattern": wanted, "under": "quayside"}, shop.grep(wanted, "quayside")),
        )
        self.acts("", ("read_file", {"path": path}, shop.read(path)))
        other = f"quayside/{chore.beside.module}.py"
        self.acts(
            f"The {chore.beside.plural} decide part of this, and the tests say what is promised.",
            ("read_file", {"path": other}, shop.read(other)),
            ("read_file", {"path": tests}, shop.read(tests)),
        )
        self.acts(
            "",
            (
                "fetch_json",
                {"path": f"/{thing.plural}?page=1&size=40"},
                shop.api_answer(thing, 40),
            ),
            thought=f"The {thing.plural} in the test environment show whether rows like the one"
            " that was reported exist at all. If they do, a guard in the function is enough.",
        )
        uses = rf"{thing.plural}|{thing.noun.capitalize()}\b"
        self.acts(
            "",
            ("search", {"pattern": uses, "under": "web", "around": 2}, shop.grep(uses, "web", 2)),
        )
        self._guard(chore, path, fails_first=number % 2 == 0)
        self._test(chore, tests, aside=number == 2)
        if chore.on_the_board:
            self._board(chore)
        self.acts("", ("run", {"command": "git diff"}, shop.diff()))
        self.acts(
            "",
            (
                "run",
                {"command": f'git commit -qam "{chore.commit}"'},
                shop.commit(chore.commit),
            ),
        )
        self.says(
            f"Done: {chore.commit[0].lower()}{chore.commit[1:]}. The check sits in `change_state`"
            f" of `{path}`, where every caller passes, so no signature changed. All 48 tests pass"
            " and the change is committed on its own."
        )

    def _guard(self, chore: Chore, path: str, *, fails_first: bool) -> None:
        shop, thing = self.workshop, chore.thing
        guard = chore.guard.format(noun=thing.noun)
        old = f"    if not may_become({thing.noun}, state):\n"
        new = guard + old
        if fails_first:
            wrong = {"path": path, "old": old.strip() + "  ", "new": new}
            self.acts("", ("edit_file", wrong, shop.edit(path, wrong["old"], new)), failed=True)
            here = shop.grep("if not may_become", path, around=12)
            self.acts(
                "The blanks did not fit; I'll look at the exact lines.",
                ("search", {"pattern": "if not may_become", "around": 12, "under": path}, here),
            )
        edit = {"path": path, "old": old, "new": new}
        self.acts(
            f"The guard belongs into `change_state`, before a {thing.noun} is asked to move.",
            ("edit_file", edit, shop.edit(path, old, new)),
        )
        self.acts("", ("run", {"command": "make test"}, shop.tests(thing)), failed=True)
        line = shop.files[path][: shop.files[path].index("def change_state")].count("\n")
        start = max(1, line - 20)
        place = {"path": path, "start": start, "limit": 60}
        self.acts(
            "One test fails. It moves backwards on purpose, so I need to see both sides again.",
            ("read_file", place, shop.read(path, start, 60)),
            ("service_log", {"limit": 36, "grep": thing.module}, shop.service_log(36)),
            thought=f"The failing test moves a {thing.noun} from its last state to its first. That"
            " was refused before as well, but the message came from another place, and the test"
            " matches on the message. The guard must come after the check of states then.",
        )

    def _test(self, chore: Chore, path: str, *, aside: bool) -> None:
        shop, thing = self.workshop, chore.thing
        test = (
            f"\ndef test_a_guarded_{thing.noun}_does_not_move(session: Session) -> None:\n"
            f'    {thing.noun} = make_{thing.noun}(state="{thing.states[0]}")\n\n'
            f"    with pytest.raises(Refused):\n"
            f'        change_state(session, {thing.noun}, "{thing.states[1]}", by="office")\n\n'
        )
        old = f"from tests.makers import make_{thing.noun}\n"
        new = f"{old}\n{test}"
        self.acts(
            "Now a test for the new rule.",
            ("edit_file", {"path": path, "old": old, "new": new}, shop.edit(path, old, new)),
            aside=_ASIDE if aside else "",
        )
        self.acts("", ("run", {"command": "make test"}, shop.tests()))

    def _board(self, chore: Chore) -> None:
        shop, thing = self.workshop, chore.thing
        path = f"web/src/{thing.module}.ts"
        self.acts("", ("read_file", {"path": path}, shop.read(path)))
        old = f"  const groups = new Map<{thing.noun.capitalize()}State,"
        new = f'  items = items.filter((item) => item.state !== "{thing.states[-1]}");\n{old}'
        self.acts(
            "The board sorts in one place only.",
            ("edit_file", {"path": path, "old": old, "new": new}, shop.edit(path, old, new)),
        )
        self.acts("", ("run", {"command": "npm run build"}, shop.web_build(thing)), failed=True)
        self.acts(
            "The type is narrower than I thought; the same pattern is used next door.",
            (
                "read_file",
                {"path": f"web/src/{chore.beside.module}.ts"},
                shop.read(f"web/src/{chore.beside.module}.ts"),
            ),
            ("run", {"command": "npm run build"}, shop.web_build()),
        )

    # How that becomes messages.

    def typed(self, text: str) -> None:
        """The person writes something."""
        self.messages.append({"role": "user", "content": [{"type": "text", "text": text}]})

    def says(self, text: str) -> None:
        """The agent answers and waits for the person."""
        self.cuts.append(len(self.messages))
        self.messages.append({"role": "assistant", "content": [{"type": "text", "text": text}]})

    def acts(
        self,
        text: str,
        *calls: tuple[str, Json, str],
        failed: bool = False,
        thought: str = "",
        aside: str = "",
    ) -> None:
        """The agent calls tools and gets their results, and perhaps the person throws a word in."""
        self.cuts.append(len(self.messages))
        blocks: list[Json] = []
        if thought:
            blocks.append({"type": "thinking", "thinking": thought, "signature": _sign(thought)})
        if text:
            blocks.append({"type": "text", "text": text})
        results: list[Json] = []
        for name, arguments, result in calls:
            id_ = f"toolu_{self.rng.getrandbits(96):024x}"
            blocks.append({"type": "tool_use", "id": id_, "name": name, "input": arguments})
            answer: Json = {"type": "tool_result", "tool_use_id": id_, "content": result}
            results.append({**answer, "is_error": True} if failed else answer)
        if aside:
            results.append({"type": "text", "text": aside})
        self.messages.append({"role": "assistant", "content": blocks})
        self.messages.append({"role": "user", "content": results})

    # How it is sent.

    def requests(self) -> Iterator[Json]:
        """The body of every request of the session, in Anthropic's form."""
        for number, cut in enumerate(self.cuts):
            yield {
                "model": MODEL,
                "max_tokens": 2_000,
                "system": [
                    {"type": "text", "text": text, "cache_control": _MARKER} for text in _SYSTEM
                ],
                "tools": list(TOOLS),
                "messages": _marked(self.messages[:cut]),
                "metadata": {"user_id": f"demo-session-{self.seed}"},
                "stream": number % 8 != 7,
            }

    def openai_requests(self) -> Iterator[Json]:
        """The same session as an OpenAI client would send it."""
        head: list[Json] = [{"role": "system", "content": "\n\n".join(_SYSTEM)}]
        tools = [
            {
                "type": "function",
                "function": {
                    "name": tool["name"],
                    "description": tool["description"],
                    "parameters": tool["input_schema"],
                },
            }
            for tool in TOOLS
        ]
        for number, cut in enumerate(self.cuts):
            body: Json = {
                "model": "gpt-4o",
                "messages": head + _as_openai(self.messages[:cut]),
                "tools": tools,
                "max_tokens": 2_000,
            }
            if number % 8 != 7:
                body |= {"stream": True, "stream_options": {"include_usage": True}}
            yield body


def encode(body: Any) -> bytes:
    """A body as a client writes it."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _sign(thought: str) -> str:
    """What looks like a provider's signature; the loopback provider learns it at first sight."""
    return base64.b64encode(hashlib.sha512(thought.encode()).digest() * 4).decode()


def _marked(messages: Sequence[Json]) -> list[Json]:
    """The messages with a marker on the end of each of the last two that the user sent."""
    marked = list(messages)
    places = [index for index, message in enumerate(marked) if message["role"] == "user"][-2:]
    for index in places:
        marked[index] = copy.deepcopy(marked[index])
        marked[index]["content"][-1]["cache_control"] = _MARKER
    return marked


def _as_openai(messages: Sequence[Json]) -> list[Json]:
    found: list[Json] = []
    for message in messages:
        texts = [block["text"] for block in message["content"] if block["type"] == "text"]
        if message["role"] == "assistant":
            turn: Json = {"role": "assistant", "content": "\n".join(texts) or None}
            calls = [_call(block) for block in message["content"] if block["type"] == "tool_use"]
            found.append({**turn, "tool_calls": calls} if calls else turn)
            continue
        for block in message["content"]:
            if block["type"] == "tool_result":
                id_, content = block["tool_use_id"], block["content"]
                found.append({"role": "tool", "tool_call_id": id_, "content": content})
        if texts:
            found.append({"role": "user", "content": "\n".join(texts)})
    return found


def _call(block: Json) -> Json:
    function = {"name": block["name"], "arguments": json.dumps(block["input"])}
    return {"id": block["id"], "type": "function", "function": function}
