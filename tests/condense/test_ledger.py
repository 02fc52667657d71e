"""Frozen edits by the links of a conversation: found again, extended, forked, taken back."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.condense import entries as this_load
from mitmcontext.condense.entries import WHOLE, Entry, Found, FrozenEdit, are_same, home, is_same
from mitmcontext.condense.ledger import PROVISIONAL, Ledger, begin, chain
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.stores.tiers import Tiers

SEED = b"\0" * 32


def links(text: str, seed: bytes = SEED) -> list[bytes]:
    """The links of a conversation with one letter a message."""
    return chain(seed, [hashlib.sha256(letter.encode()).digest() for letter in text])


def entry(*messages: int, step: int = 1) -> Entry:
    edits = tuple(FrozenEdit(at, 0, b"d" * 32, f"short {at}") for at in messages)
    return Entry(edits, step, 100, 50, "warning")


def ledger() -> Ledger:
    return Ledger(Memory(cells(1 << 20)))


texts = st.text("abc", min_size=1, max_size=8)


@given(texts, texts)
def test_conversations_share_their_links_up_to_where_they_part(one: str, other: str) -> None:
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    first, second = links(one), links(other)
    assert first[:shared] == second[:shared]
    assert not set(first[shared:]) & set(second[shared:])


def test_another_tenant_shares_none() -> None:
    assert not set(links("abc")) & set(links("abc", b"\1" * 32))


def test_a_chain_goes_on_where_it_ended() -> None:
    whole = links("abcd")
    rest = [hashlib.sha256(letter.encode()).digest() for letter in "cd"]
    assert chain(whole[1], rest) == whole[2:]


def test_what_is_frozen_is_found_by_whoever_sends_the_same_again() -> None:
    book = ledger()
    frozen = book.freeze(links("abcdefgh"), entry(1, 3), None)
    assert frozen == Found(3, entry(1, 3))
    assert book.find(links("abcdefgh")) == frozen
    assert book.find(links("abcdexyz")) == frozen, "a fork behind it"
    assert book.find(links("abcde")) == frozen, "a rewind to behind it"
    assert book.find(links("abxdefgh")) is None, "a fork before it"
    assert book.find(links("abc")) is None, "a rewind to before it"
    assert book.find(links("abcd")) is None, "whoever goes back to just there wants an answer"
    assert book.find([]) is None


def test_the_deepest_entry_holds() -> None:
    book = ledger()
    first = book.freeze(links("abcdefgh"), entry(1), None)
    second = book.freeze(links("abcdefgh"), entry(1, 5, step=2), first)
    assert second == Found(5, entry(1, 5, step=2))
    assert book.find(links("abcdefgh")) == second
    assert book.find(links("abcdxx")) == first


def test_a_later_step_that_edits_nothing_deeper_takes_the_next_place() -> None:
    book = ledger()
    found: Found | None = None
    for step in range(1, 6):
        found = book.freeze(links("abcdefgh"), entry(1, 3, step=step), found)
        assert found == Found(3, entry(1, 3, step=step))
        assert book.find(links("abcdefgh")) == found


def test_a_step_with_fewer_edits_stays_where_the_last_one_was() -> None:
    book = ledger()
    first = book.freeze(links("abcdefgh"), entry(1, 5), None)
    second = book.freeze(links("abcdefgh"), entry(1, step=2), first)
    assert second.at == home(entry(1, step=2), first) == 5
    assert book.find(links("abcdefgh")) == second


@pytest.mark.parametrize("late", [entry(1), entry(1, 3), entry(2, 5)])
def test_of_two_steps_the_first_one_holds(late: Entry) -> None:
    book = ledger()
    won = book.freeze(links("abcdefgh"), entry(1, 3, step=1), None)
    assert book.freeze(links("abcdefgh"), late, None) == won
    assert book.find(links("abcdefgh")) == won


def test_a_step_planned_on_an_old_entry_gives_way() -> None:
    book = ledger()
    first = book.freeze(links("abcdefgh"), entry(1), None)
    second = book.freeze(links("abcdefgh"), entry(1, 4, step=2), first)
    late = book.freeze(links("abcdefgh"), entry(1, 5, step=2), first)
    assert late == second


def test_forks_freeze_for_themselves() -> None:
    book = ledger()
    first = book.freeze(links("abcdefgh"), entry(1), None)
    one = book.freeze(links("abcdefgh"), entry(1, 5, step=2), first)
    other = book.freeze(links("abcdxxxx"), entry(1, 6, step=2), first)
    assert book.find(links("abcdefgh")) == one
    assert book.find(links("abcdxxxxx")) == other


def test_an_entry_that_was_taken_back_leaves_the_one_before() -> None:
    book = ledger()
    first = book.freeze(links("abcdefgh"), entry(1), None)
    second = book.freeze(links("abcdefgh"), entry(1, 5, step=2), first)
    third = book.freeze(links("abcdefgh"), entry(1, 5, step=3), second)
    for newest, before in ((third, second), (second, first), (first, None)):
        assert book.find(links("abcdefgh")) == newest
        book.retract(links("abcdefgh"), newest)
        assert book.find(links("abcdefgh")) == before


def test_only_the_newest_entry_is_taken_back() -> None:
    book = ledger()
    first = book.freeze(links("abcdefgh"), entry(1, 3), None)
    second = book.freeze(links("abcdefgh"), entry(1, 3, step=2), first)
    book.retract(links("abcdefgh"), first)
    assert book.find(links("abcdefgh")) == second


def test_a_new_step_may_follow_one_that_was_taken_back() -> None:
    book = ledger()
    first = book.freeze(links("abcdefgh"), entry(1, 3), None)
    book.retract(links("abcdefgh"), first)
    again = book.freeze(links("abcdefgh"), entry(1, 2), None)
    assert book.find(links("abcdefgh")) == again


def test_clearing_forgets_everything() -> None:
    book = ledger()
    book.freeze(links("abcd"), entry(1), None)
    book.clear()
    assert book.find(links("abcd")) is None


edits = st.builds(
    FrozenEdit,
    st.integers(0, 7),
    st.sampled_from([WHOLE, 0, 3]),
    st.binary(min_size=32, max_size=32),
    st.none() | st.text(max_size=20),
)


@given(st.lists(edits, min_size=1, max_size=6), st.integers(0, 9))
def test_entries_come_back_as_they_went_in(made: Sequence[FrozenEdit], step: int) -> None:
    book = ledger()
    kept = Entry(tuple(made), step, 1 << 40, 7, "overflow")
    book.freeze(links("abcdefghi"), kept, None)
    found = book.find(links("abcdefghi"))
    assert found is not None
    assert found.entry == kept


def shelf() -> Memory:
    return Memory(cells(1 << 20))


def test_what_is_frozen_is_found_again_after_a_restart() -> None:
    far = Tiers([shelf()])
    told = links("abcdefghijklmnopqrstuvwxyz")
    first = Ledger(shelf(), far)
    frozen = first.freeze(told, entry(10), None)

    again = Ledger(shelf(), far)

    certain, found = again.near(told)
    assert (certain, found) == (False, None)
    assert again.find(told) == frozen
    longer = [*told, b"n" * 32]
    assert again.near(longer)[0] is False, "somebody may have gone back before the restart"
    assert again.find(longer) == frozen
    assert again.near([*longer, b"m" * 32]) == (True, frozen)


def test_who_goes_back_after_a_restart_and_forward_again_finds_what_is_deeper() -> None:
    far = shelf()
    before = Ledger(shelf(), Tiers([far]))
    first = before.freeze(links("abcdefgh"), entry(1), None)
    second = before.freeze(links("abcdefghij"), entry(1, 7, step=2), first)
    book = Ledger(shelf(), Tiers([far]))
    assert book.find(links("abcdef")) == first
    assert book.find(links("abcdefghij")) == second
    assert book.near(links("abcdefghijkl")) == (True, second), "from then on memory knows"


def test_what_memory_lost_is_fetched_again() -> None:
    near = shelf()
    book = Ledger(near, Tiers([shelf()]))
    told = links("abcdefghijklmnopqrstuvwxyz")
    frozen = book.freeze(told, entry(10), None)
    assert book.find(told) == frozen

    near.clear()

    assert book.near(told) == (False, None)
    assert book.find(told) == frozen


@pytest.mark.parametrize("size", [0, 1_000, 1_500])
def test_the_newest_step_holds_where_memory_has_no_room_for_all(size: int) -> None:
    far = Tiers([shelf()])
    told = links("abcdefghijklmnopqrstuvwxyz")
    before = Ledger(shelf(), far)
    found: Found | None = None
    for step, last in enumerate([3, 7, 7, 7, 12, 12], 1):
        found = before.freeze(told, entry(1, last, step=step), found)
    assert found is not None

    book = Ledger(Memory(cells(size)), far)
    assert book.find(told) == found
    later = book.freeze(told, entry(1, 12, step=7), found)
    assert later.entry.step == 7
    assert book.find(told) == later
    book.retract(told, later)
    assert book.find(told) == found


def test_a_step_that_memory_lost_is_missed_where_it_has_the_one_before() -> None:
    near = shelf()
    book = Ledger(near, Tiers([shelf()]))
    told = links("abcdefghijklmnopqrstuvwxyz")
    first = book.freeze(told, entry(1, 10), None)
    second = book.freeze(told, entry(1, 8, step=2), first)
    assert book.find(told) == second

    near.delete([told[10] + (1).to_bytes(2, "big")])

    assert book.near([*told, b"n" * 32])[0] is False
    assert book.find([*told, b"n" * 32]) == second


def test_two_that_share_a_shelf_agree() -> None:
    far = Tiers([shelf()])
    here, there = (Ledger(shelf(), far, shared=True) for _ in range(2))
    told = links("abcdefghijklmnopqrstuvwxyz")
    assert there.find(told) is None

    first = here.freeze(told, entry(10), None)
    second = there.freeze(told, entry(8, 10), None)

    assert second == first
    assert there.find(told) == first


def test_an_entry_lives_for_minutes_until_the_provider_took_it() -> None:
    now = [0.0]
    far = Tiers([Memory(cells(1 << 20, lambda: now[0]))])
    told = links("abcdefghijklmnopqrstuvwxyz")
    forged = Ledger(shelf(), far).freeze(told, entry(10), None)
    now[0] = PROVISIONAL + 1
    assert Ledger(shelf(), far).find(told) is None

    book = Ledger(shelf(), far, kept=1e6)
    taken = book.freeze(told, entry(10), None)
    book.confirm(told, taken)
    now[0] += PROVISIONAL + 1

    assert Ledger(shelf(), far).find(told) == taken == forged


def test_forgetting_removes_all_steps_of_a_conversation_everywhere() -> None:
    near, far = shelf(), Tiers([shelf()])
    book = Ledger(near, far)
    told = links("abcdefghijklmnopqrstuvwxyz")
    first = book.freeze(told[:20], entry(10), None)
    later = msgspec.structs.replace(entry(15, step=2), earlier=(told[10],))
    book.freeze(told, later, first)

    # From an older flow of the conversation, all that came later is meant, too.
    assert book.forget(told[first.at]) == (2, True)

    assert book.find(told) is None
    assert Ledger(shelf(), far).find(told) is None
    assert near.figures().entries == 0
    assert far.figures().entries == 1, "for how little anything was ever frozen"


def test_of_two_steps_that_were_taken_apart_the_shared_one_holds_for_both() -> None:
    told = links("abcdefghijklmnopqrstuvwxyz")
    disks, nears, shared = (shelf(), shelf()), (shelf(), shelf()), shelf()
    entries = entry(10), entry(10, 9)
    # What they share is away: each takes a step of its own.
    frozen = [
        Ledger(near, Tiers([disk]), shared=True).freeze(told, one, None)
        for near, disk, one in zip(nears, disks, entries, strict=True)
    ]
    assert frozen[0] != frozen[1]

    books = [
        Ledger(near, Tiers([disk, shared]), shared=True)
        for near, disk in zip(nears, disks, strict=True)
    ]
    for book, own in zip(books, frozen, strict=True):
        book.confirm(told, own)

    assert [book.find(told) for book in books] == [frozen[0]] * 2


def test_another_proxy_holds_nothing_that_was_forgotten() -> None:
    shared = shelf()
    told = links("abcdefghijklmnopqrstuvwxyz")
    here, there = (Ledger(shelf(), Tiers([shelf(), shared]), shared=True) for _ in range(2))
    frozen = here.freeze(told, entry(10), None)
    assert there.find(told) == frozen

    assert here.forget(told[frozen.at]) == (1, True)
    there.forget_nearby()

    assert there.find(told) is None
    there.confirm(told, frozen)
    assert here.find(told) is None


def test_what_could_not_be_removed_everywhere_is_said() -> None:
    far = shelf()
    far.clear = lambda: False  # type: ignore[method-assign]
    far.delete = lambda keys: False  # type: ignore[method-assign]
    book = Ledger(shelf(), Tiers([far]))
    told = links("abcdefghijklmnopqrstuvwxyz")
    frozen = book.freeze(told, entry(10), None)
    assert book.forget(told[frozen.at]) == (1, False)
    assert not book.clear()


def test_it_is_known_for_how_little_anything_was_frozen() -> None:
    far = Tiers([shelf()])
    told = links("abcdefgh")
    book = Ledger(shelf(), far)
    book.look_for_smaller()
    assert book.smallest > 10**12, "for nothing yet"

    book.freeze(told, entry(3), None, 80_000)
    assert 0 < book.smallest <= 80_000 // 2, "the same messages may be sent in fewer bytes"
    book.freeze(links("xyzxyz"), entry(1), None, 8_000)
    smallest = book.smallest
    assert 0 < smallest <= 8_000 // 2
    book.freeze(links("yyyyyy"), entry(1), None, 90_000)
    assert book.smallest == smallest

    again = Ledger(shelf(), far)
    assert again.smallest > smallest
    again.look_for_smaller()
    assert again.smallest == smallest, "after a restart"
    again.freeze(links("zzzzzz"), entry(1), None)
    assert again.smallest == 0, "who does not say may mean any size"
    book.look_for_smaller()
    assert book.smallest == 0, "another proxy's"

    assert book.clear()
    book.look_for_smaller()
    assert book.smallest > 10**12


def test_how_little_is_kept_for_outlives_a_reload_and_an_older_version() -> None:
    near, sizes = shelf(), dict[str, int]()
    Ledger(near, sizes=sizes).freeze(links("abcdefgh"), entry(3), None, 80_000)
    assert 0 < Ledger(near, sizes=sizes).smallest < 80_000
    assert Ledger(near, sizes={}).smallest == 0, "what an older version froze may be any size"


def test_what_heals_a_shelf_says_how_little_it_is_for() -> None:
    disk = shelf()
    near, far, told = shelf(), Tiers([disk]), links("abcdefgh")
    book = Ledger(near, far)
    frozen = book.freeze(told, entry(3), None, 80_000)
    disk.clear()

    assert book.confirm(told, frozen)

    fresh = Ledger(shelf(), far)
    assert fresh.look_for_smaller()
    assert fresh.smallest == book.smallest


def test_what_heals_one_of_two_tiers_says_it_there() -> None:
    """As after a restart of Redis, where others have frozen something longer meanwhile."""
    shared, told = shelf(), links("abcdefgh")
    here, there = Ledger(shelf(), Tiers([shelf(), shared])), Ledger(shelf(), Tiers([shared]))
    frozen = here.freeze(told, entry(3), None, 80_000)
    shared.clear()
    there_frozen = there.freeze(links("xyzxyz"), entry(1), None, 10 * 80_000)
    assert there_frozen.at == 1

    assert here.confirm(told, frozen)

    assert there.look_for_smaller()
    assert there.smallest == here.smallest
    shared.clear()
    assert here.confirm(told, frozen)
    fresh = Ledger(shelf(), Tiers([shared]))
    assert fresh.look_for_smaller()
    assert fresh.smallest == here.smallest


def test_what_an_older_version_kept_may_be_any_size() -> None:
    far = Tiers([shelf()])
    far.set(b"an entry without a size", b"", 60.0)
    for _ in range(2):
        book = Ledger(shelf(), far)
        assert book.look_for_smaller()
        assert book.smallest == 0
    assert book.clear()
    far.set(b"a count", b"", 60.0)
    assert book.look_for_smaller()
    assert book.smallest > 10**12


def test_what_is_kept_beside_says_nothing_of_sizes() -> None:
    far = Tiers([shelf()])
    begin(far)
    far.set(b"a count", b"", 60.0)
    begin(far)
    book = Ledger(shelf(), far)
    assert book.look_for_smaller()
    assert book.smallest > 10**12


def test_what_was_found_before_a_reload_is_what_is_found_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same module loaded twice has two classes of each name, whose values are never equal."""
    spec = importlib.util.spec_from_file_location("an_earlier_load", this_load.__file__)
    assert spec is not None
    assert spec.loader is not None
    earlier = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, earlier)
    spec.loader.exec_module(earlier)
    stepped = entry(0, 1)
    old_edits = tuple(earlier.FrozenEdit(*msgspec.structs.astuple(one)) for one in stepped.edits)
    old = earlier.Found(1, msgspec.convert(msgspec.to_builtins(stepped), earlier.Entry))

    assert old != Found(1, stepped)
    assert is_same(Found(1, stepped), old)
    assert not is_same(Found(0, stepped), old)
    assert not is_same(Found(1, entry(0, 2)), old)
    assert are_same(stepped.edits, old_edits)
    assert not are_same(stepped.edits[:1], old_edits)

    kept = ledger()
    kept.freeze(links("ab"), stepped, None)
    further = entry(0, 1, step=2)
    assert kept.freeze(links("ab"), further, old).entry is further
