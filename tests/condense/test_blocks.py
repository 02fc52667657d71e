"""Blocks are whole lines, and what the conversation speaks of is worth more than the rest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.condense.blocks import Block, Source, blocks_of, ranked, unnumbered, words

texts = st.text(st.sampled_from("ab \n\\,1"), max_size=5_000)


@given(texts)
def test_blocks_are_the_whole_text_in_order(text: str) -> None:
    found = blocks_of(text)
    assert "".join(text[start:end] for start, end in found) == text
    assert all(0 < end - start <= 1_000 for start, end in found)


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=80), max_size=60))
def test_lines_of_usual_length_are_never_cut(lines: list[str]) -> None:
    text = "\n".join(lines)
    for _, end in blocks_of(text)[:-1]:
        assert text[end - 1] == "\n"


def test_a_line_of_escaped_lines_is_cut_where_these_end() -> None:
    text = '{"result": "' + "\\n".join(f"line {number} of a file" for number in range(200)) + '"}'
    assert all(text[start:end].endswith("\\n") for start, end in blocks_of(text)[:-1])


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=30), min_size=5))
def test_line_numbers_go_and_nothing_else(lines: list[str]) -> None:
    shown = "\n".join(f"{number:6}\u2192{line}" for number, line in enumerate(lines, 40))
    assert unnumbered(shown) == ("\n".join(lines), len(lines))
    reminder = f"{shown}\n\n<reminder>40\u2192 is no number</reminder>"
    expected = "\n".join([*lines, "", "<reminder>40\u2192 is no number</reminder>"])
    assert unnumbered(reminder) == (expected, len(lines))


@given(st.text(max_size=500))
def test_numbers_that_do_not_count_on_stay(text: str) -> None:
    for said in (text, "1\t1\n2\t2\n4\t4\n8\t8\n16\t16", "   1\u2192a\n   2\u2192b"):
        assert unnumbered(said)[1] == 0 or said == text
        assert unnumbered(said)[0] == said or said == text


def source(number: int, text: str, weight: float = 1.0) -> Source:
    return Source(number, 0, text, len(text) / 4, number, weight)


def order(*sources: Source, standing: str = "", **mentioned: int) -> list[int]:
    """The sources, each of one block, those of the least worth first."""
    cuts = [[Block(0, len(one.text))] for one in sources]
    found = ranked(sources, cuts, set(standing.split("\n")), mentioned, 10)
    return [one.source for one in found]


def test_what_was_named_since_is_worth_more() -> None:
    alpha, beta = "def alpha_value(): pass", "def betas_value(): pass"
    assert order(source(0, alpha), source(0, beta), alpha_value=9) == [1, 0]
    assert order(source(0, alpha), source(0, beta), betas_value=9) == [0, 1]
    assert order(source(5, alpha), source(5, beta), alpha_value=3) == [0, 1], "named before"


def test_what_stands_elsewhere_is_worth_less() -> None:
    assert order(source(3, "only here"), source(3, "kept anyway"), standing="kept anyway") == [1, 0]
    assert order(source(0, "said twice"), source(9, "said twice"))[0] == 0, "the newest carries it"


def test_what_is_recent_is_worth_more() -> None:
    assert order(source(1, "the first one"), source(9, "the other one")) == [0, 1]


def test_what_is_known_of_a_result_weighs() -> None:
    assert order(source(3, "a file's text", 1.5), source(3, "another's one")) == [1, 0]


def test_words_are_what_code_names() -> None:
    assert words("def load_settings(path: str) -> dict: # 42 x") == {
        "load_settings",
        "path",
        "dict",
    }
