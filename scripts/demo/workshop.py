"""What the agent of the session works with: files, and tools that answer as real ones do."""

from __future__ import annotations

import difflib
import json
import random
import re
from dataclasses import dataclass, field

from .sources import THINGS, Thing, project


@dataclass
class Workshop:
    """The checkout that the agent sees, and its tools. Every answer follows from the seed."""

    rng: random.Random
    files: dict[str, str] = field(default_factory=dict)
    committed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Write the program that is worked on."""
        self.files = project(self.rng)
        self.committed = dict(self.files)

    def read(self, path: str, start: int = 1, limit: int = 2_000) -> str:
        """The lines of a file with their numbers."""
        lines = self.files[path].split("\n")[start - 1 : start - 1 + limit]
        return "\n".join(f"{number:6}→{line}" for number, line in enumerate(lines, start))

    def grep(self, pattern: str, under: str = "", around: int = 0) -> str:
        """Every line that fits, with its file and number."""
        found = []
        for path, text in self.files.items():
            lines = text.split("\n")
            hits = [n for n, line in enumerate(lines) if re.search(pattern, line)]
            if not path.startswith(under):
                continue
            for hit in hits:
                for number in range(max(0, hit - around), min(len(lines), hit + around + 1)):
                    sign = ":" if number == hit else "-"
                    found.append(f"{path}{sign}{number + 1}{sign}{lines[number]}")
                if around:
                    found.append("--")
        return "\n".join(found) or "No matches found"

    def glob(self, under: str) -> str:
        """The files below a folder, as a long listing."""
        rows = ["total 312"]
        for path in sorted(self.files):
            if path.startswith(under):
                size = len(self.files[path].encode())
                day, hour, minute = (
                    self.rng.randrange(1, 29),
                    self.rng.randrange(7, 20),
                    self.rng.randrange(60),
                )
                rows.append(
                    f"-rw-r--r--  1 dev  dev  {size:6}  Oct {day:2} {hour:02}:{minute:02}  {path}"
                )
        return "\n".join(rows)

    def edit(self, path: str, old: str, new: str) -> str:
        """Replace one stretch of a file and show where it stands now."""
        text = self.files[path]
        if text.count(old) != 1:
            return f"Error: the text to replace occurs {text.count(old)} times in {path}"
        self.files[path] = text.replace(old, new)
        line = text[: text.index(old)].count("\n") + 1
        shown = self.read(path, max(1, line - 3), new.count("\n") + 8)
        return f"{path} has been updated. The lines around the change:\n{shown}"

    def diff(self) -> str:
        """What was changed since the last commit."""
        shown: list[str] = []
        for path, text in self.files.items():
            before = self.committed.get(path, "")
            if before != text:
                shown.append(f"diff --git a/{path} b/{path}")
                shown += difflib.unified_diff(
                    before.split("\n"), text.split("\n"), f"a/{path}", f"b/{path}", lineterm="", n=6
                )
        return "\n".join(shown) or "nothing to commit, working tree clean"

    def commit(self, message: str) -> str:
        """Take what was changed for the new state."""
        changed = [path for path, text in self.files.items() if self.committed.get(path) != text]
        self.committed = dict(self.files)
        digest = f"{self.rng.getrandbits(28):07x}"
        return f"[fix/overlaps {digest}] {message}\n {len(changed)} files changed"

    def tests(self, failing: Thing | None = None) -> str:
        """A run of the service's tests, one of them failing if a thing is named."""
        lines = [
            "============================= test session starts ==============================",
            "platform linux -- Python 3.13.0, pytest-8.4.2, pluggy-1.6.0",
            "rootdir: quayside, configfile: pyproject.toml",
            "collected 48 items",
            "",
        ]
        done = 0
        for thing in THINGS:
            marks = "...F.." if thing is failing else "......"
            done += 6
            lines.append(f"tests/test_{thing.module}.py {marks:<50}[{done * 100 // 48:3}%]")
        seconds = self.rng.uniform(1.2, 4.8)
        if failing is None:
            return "\n".join([*lines, "", f"{' 48 passed in ' + f'{seconds:.2f}s ':=^80}"])
        lines += ["", *self._failure(failing), ""]
        lines.append(f"{f' 1 failed, 47 passed in {seconds:.2f}s ':=^80}")
        return "\n".join(lines)

    def _failure(self, thing: Thing) -> list[str]:
        source = self.files[f"quayside/{thing.module}.py"].split("\n")
        at = next(n for n, line in enumerate(source) if line.startswith("def change_state"))
        noun, first, last = thing.noun, thing.states[0], thing.states[-1]
        id_ = f"{noun[0]}-{self.rng.randrange(1_000, 9_999)}"
        return [
            "=================================== FAILURES ===================================",
            f"{f' test_a_{noun}_moves_forward_only[{last}] ':_^80}",
            "",
            f"session = <tests.makers.MemorySession object at 0x7f{self.rng.getrandbits(40):010x}>",
            f"state = '{last}'",
            "",
            f"    def test_a_{noun}_moves_forward_only(session: Session, state: str) -> None:",
            f'        {noun} = make_{noun}(state="{last}")',
            f">       changed = change_state(session, {noun}, '{first}', by='test')",
            "",
            f"tests/test_{thing.module}.py:31:",
            "_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _",
            "",
            *(f"    {line}" for line in source[at : at + 4]),
            f"E           quayside.errors.Refused: a {noun} cannot go from {last} to {first}",
            "",
            f"quayside/{thing.module}.py:{at + 4}: Refused",
            "------------------------------ Captured log call -------------------------------",
            *self._log(thing, id_),
            "=========================== short test summary info ============================",
            f"FAILED tests/test_{thing.module}.py::test_a_{noun}_moves_forward_only[{last}]",
        ]

    def _log(self, thing: Thing, id_: str) -> list[str]:
        return [
            f"INFO     quayside.{thing.module}:{self.rng.randrange(60, 160)} {thing.noun} {id_}:"
            f" {before} -> {after} by {self.rng.choice(('night run', 'office', 'import'))}"
            for before, after in zip(thing.states, thing.states[1:], strict=False)
        ]

    def service_log(self, lines: int) -> str:
        """What the service wrote while somebody tried to book."""
        hour, shown = self.rng.randrange(20, 23), []
        for number in range(lines):
            thing = self.rng.choice(THINGS)
            level = self.rng.choice(("INFO", "INFO", "INFO", "DEBUG", "WARNING"))
            took = self.rng.uniform(0.6, 240)
            shown.append(
                f"2026-10-{self.rng.randrange(10, 29)}T{hour:02}:{number % 60:02}:"
                f"{self.rng.randrange(60):02}.{self.rng.randrange(1000):03}Z {level:7}"
                f" quayside.{thing.module} request={self.rng.getrandbits(32):08x}"
                f" {self.rng.choice(('GET', 'POST', 'PATCH'))} /api/{thing.plural}"
                f"/{thing.noun[0]}-{self.rng.randrange(1_000, 9_999)}"
                f" {self.rng.choice((200, 200, 201, 409, 422))} {took:.1f}ms"
            )
        return "\n".join(shown)

    def api_answer(self, thing: Thing, count: int) -> str:
        """A page of the service's own JSON."""
        items = [
            {
                "id": f"{thing.noun[0]}-{self.rng.randrange(1_000, 9_999)}",
                "state": self.rng.choice(thing.states),
                **{name: self._sample(kind) for name, kind in thing.fields},
            }
            for _ in range(count)
        ]
        return json.dumps({thing.plural: items, "page": 1, "size": count}, indent=2)

    def _sample(self, kind: str) -> object:
        if kind == "datetime":
            day, hour = self.rng.randrange(1, 29), self.rng.randrange(24)
            return f"2026-11-{day:02}T{hour:02}:{self.rng.choice((0, 15, 30, 45)):02}Z"
        if kind == "date":
            return f"2026-12-{self.rng.randrange(1, 29):02}"
        if kind == "bool":
            return self.rng.random() < 0.5
        if kind == "float":
            return round(self.rng.uniform(2, 240), 1)
        if kind == "int":
            return self.rng.randrange(1, 90_000)
        return "-".join(self.rng.choices(("ems", "jade", "nord", "kai", "ost", "hamm"), k=2))

    def web_build(self, broken: Thing | None = None) -> str:
        """A build of the web page, with an error of types if a thing is named."""
        lines = ["> quayside-web@0.9.1 build", "> tsc --noEmit && vite build", ""]
        if broken is not None:
            noun = broken.noun.capitalize()
            for number in range(3):
                lines.append(
                    f"src/{broken.module}.ts:{31 + 14 * number}:9 - error TS2322: Type 'string' is"
                    f" not assignable to type '{noun}State'."
                )
                lines += ["", f"{31 + 14 * number}     state: next,", "            ~~~~~", ""]
            return "\n".join([*lines, "Found 3 errors in the same file."])
        lines += ["vite v7.1.9 building for production...", "✓ 214 modules transformed."]
        for thing in THINGS:
            size = self.rng.uniform(2, 48)
            lines.append(
                f"dist/assets/{thing.module}-{self.rng.getrandbits(32):08x}.js"
                f"  {size:6.2f} kB │ gzip: {size / 3:5.2f} kB"
            )
        return "\n".join([*lines, f"✓ built in {self.rng.uniform(1, 4):.2f}s"])
