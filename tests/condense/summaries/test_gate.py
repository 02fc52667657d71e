"""What may take the place of a stretch, and what may not."""

from __future__ import annotations

import pytest
from tests.condense.summaries.stories import call, result, user

from mitmcontext.condense.summaries.gate import (
    INDEX_SHARE,
    Accepted,
    Rejection,
    judged_names,
    judged_text,
)
from mitmcontext.condense.summaries.identifiers import identifiers, recurring

NAMES = [f"src/orders/part_{n}.py" for n in range(10)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", Rejection.EMPTY),
        (" \n\t ", Rejection.EMPTY),
        ("ok", Rejection.EMPTY),
        ("I'm sorry, but I can't help with that request.", Rejection.REFUSAL),
        ("I cannot summarise this conversation.", Rejection.REFUSAL),
        ("I can\u2019t.", Rejection.REFUSAL),
        ("<!DOCTYPE html><html><body>Bad gateway, try again later</body></html>", Rejection.PAGE),
        ("<html><head><title>502</title></head><body>Bad gateway</body></html>", Rejection.PAGE),
    ],
)
def test_what_is_no_summary(text: str, fault: Rejection) -> None:
    assert judged_text(text) is fault


def test_a_report_of_a_refusal_is_none() -> None:
    said = "The user asked for the key; the assistant said that it cannot give it away. " * 2
    assert judged_text(said) is None
    assert judged_text("I'm sorry was what the assistant said first. " + said * 6) is None


def test_prose_has_to_hold_half_of_the_names() -> None:
    prose = "The files part_0.py, part_1.py, part_2.py and part_3.py were read. " + "x" * 2_000
    assert judged_names(prose, NAMES, 0.8) is Rejection.NAMES
    passed = judged_names(prose + " And part_4.py.", NAMES, 0.8)
    assert isinstance(passed, Accepted)
    assert passed.index == tuple(NAMES[5:])


def test_the_index_is_small_and_the_rest_has_to_be_told() -> None:
    prose = " ".join(NAMES[:5])
    assert judged_names(prose, NAMES, 0.8) is Rejection.NAMES
    passed = judged_names(prose, NAMES, 0.5)
    assert isinstance(passed, Accepted)
    size = len(", ".join(passed.index))
    assert size <= INDEX_SHARE * (len(prose) + size) + 2


def test_without_names_there_is_nothing_to_hold() -> None:
    assert judged_names("They talked of roses.", [], 0.9) == Accepted("They talked of roses.")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "src/app/worker.py",
            "src/worker.py",
            "load_settings",
            "OrderService",
            "readFile",
            "1.22.3",
        ),
        *("7f3a9c2e", "JIRA-123", "ValueError", "/srv/data/x.log", "40961", "@types/node", "a.b.c"),
    ],
)
def test_identifiers(name: str) -> None:
    assert name in identifiers(f"we saw {name}, and then nothing.")


@pytest.mark.parametrize(
    "word", ["the", "Monday", "facade", "and/", "deadbeef", "12", "404", "2023", "and/or", "he/she"]
)
def test_words_are_no_identifiers(word: str) -> None:
    assert word not in identifiers(f"it was {word} again")


def test_what_recurs_is_asked_for_and_what_is_still_spoken_of_first() -> None:
    stretch = [
        user("read a_file.py and other_file.py"),
        result(1, "a_file.py has once_only()"),
        result(2, "see /home/x/a_file.py and still_used()"),
    ]
    assert recurring(stretch, [user("call still_used() now")], 10_000) == (
        "still_used",
        "a_file.py",
    )
    assert len(recurring([user(" ".join(f"n_{i}" for i in range(99)))] * 2, [], 60)) == 12


def test_fields_tags_and_escapes_of_a_call_are_nobodys_names() -> None:
    said = r'Write {"file_path":"src/a_file.py","content":"<system-reminder>\nThis is old_name"}'
    twice = [call(1, said), call(2, said)]
    assert set(recurring(twice, [], 10_000)) == {"src/a_file.py", "old_name"}


def test_a_megabyte_of_one_letter_takes_no_time() -> None:
    assert identifiers("a" * 1_000_000) == frozenset()


def test_a_line_of_a_file_is_the_file() -> None:
    found = identifiers("see worker.py:12 and src/app/worker.py:12:4.")
    assert found == {"worker.py", "src/app/worker.py"}
