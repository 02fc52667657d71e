"""What holds for every store: memory, SQLite, Redis, sealed or not, and their tiers."""

from __future__ import annotations

import threading

import pytest
from tests.stores.makers import Made

from mitmcontext.stores.base import OK


def test_what_was_set_is_found(made: Made) -> None:
    assert made.store.set(b"key", b"value", 60)
    assert made.store.get_many([b"key", b"other"]) == {b"key": b"value"}


def test_an_empty_value_is_a_value(made: Made) -> None:
    assert made.store.set(b"key", b"", 60)
    assert made.store.get_many([b"key"]) == {b"key": b""}
    assert made.store.add(b"key", b"another", 60) == b""


@pytest.mark.parametrize("count", [0, 1, 9, 600, 1_100])
def test_many_keys_are_looked_up_at_once(made: Made, count: int) -> None:
    keys = [b"%d" % number for number in range(count)]
    for key in keys[::50]:
        made.store.set(key, b"value of " + key, 60)
    assert made.store.get_many(keys) == {key: b"value of " + key for key in keys[::50]}


def test_a_key_asked_for_twice_is_found_once(made: Made) -> None:
    made.store.set(b"key", b"value", 60)
    assert made.store.get_many([b"key", b"key"]) == {b"key": b"value"}


def test_a_value_of_100_kilobytes_comes_back_as_it_was(made: Made) -> None:
    value = bytes(range(256)) * 400
    assert made.store.set(b"key", value, 60)
    assert made.store.get_many([b"key"]) == {b"key": value}


def test_set_overwrites(made: Made) -> None:
    made.store.set(b"key", b"one", 60)
    made.store.set(b"key", b"two", 60)
    assert made.store.get_many([b"key"]) == {b"key": b"two"}


def test_add_inserts_only_if_absent_and_says_what_holds(made: Made) -> None:
    assert made.store.add(b"key", b"one", 60) == b"one"
    assert made.store.add(b"key", b"two", 60) == b"one"
    assert made.store.get_many([b"key"]) == {b"key": b"one"}


def test_of_many_who_add_at_once_one_wins(made: Made) -> None:
    held: list[bytes | None] = []
    ready = threading.Barrier(8)

    def add(number: int) -> None:
        ready.wait()
        held.append(made.store.add(b"key", b"%d" % number, 60))

    threads = [threading.Thread(target=add, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 8
    assert set(held) == {made.store.get_many([b"key"])[b"key"]}


def test_replace_needs_the_old_value(made: Made) -> None:
    assert not made.store.replace(b"key", b"one", b"two", 60)
    made.store.set(b"key", b"one", 60)
    assert not made.store.replace(b"key", b"other", b"two", 60)
    assert made.store.replace(b"key", b"one", b"two", 60)
    assert made.store.get_many([b"key"]) == {b"key": b"two"}


def test_what_has_expired_is_gone(made: Made) -> None:
    made.store.set(b"short", b"value", 0.2)
    made.store.set(b"long", b"value", 60)
    made.wait(0.3)
    assert made.store.get_many([b"short", b"long"]) == {b"long": b"value"}
    assert made.store.add(b"short", b"new", 60) == b"new"


def test_the_seconds_left_are_told(made: Made) -> None:
    made.store.set(b"key", b"value", 60)
    made.wait(0.2)
    (kept,) = made.store.look_up([b"key", b"other"]).values()
    assert kept.value == b"value"
    assert 50 < kept.seconds < 59.9


def test_extending_lets_an_entry_live_longer_and_never_shorter(made: Made) -> None:
    assert not made.store.extend(b"key", 60)
    made.store.set(b"key", b"value", 0.4)
    assert made.store.extend(b"key", 60)
    assert made.store.extend(b"key", 0.2)
    made.wait(0.5)
    assert made.store.get_many([b"key"]) == {b"key": b"value"}


def test_what_is_to_live_for_no_time_is_not_kept_nor_is_what_was_there(made: Made) -> None:
    made.store.set(b"key", b"value", 60)
    assert not made.store.set(b"key", b"new", 0)
    assert made.store.get_many([b"key"]) == {}
    assert made.store.add(b"key", b"new", -1) is None


def test_deleting_removes_for_certain(made: Made) -> None:
    made.store.set(b"one", b"1", 60)
    made.store.set(b"two", b"2", 60)
    assert made.store.delete([b"one", b"never there"])
    assert made.store.get_many([b"one", b"two"]) == {b"two": b"2"}


def test_clearing_removes_everything(made: Made) -> None:
    for number in range(20):
        made.store.set(b"%d" % number, b"value", 60)
    assert made.store.clear()
    assert made.store.get_many([b"%d" % number for number in range(20)]) == {}
    made.store.set(b"1", b"new", 60)
    assert made.store.get_many([b"1"]) == {b"1": b"new"}


def test_cleaning_up_keeps_what_lives(made: Made) -> None:
    made.store.set(b"short", b"value", 0.1)
    made.store.set(b"long", b"value", 60)
    made.wait(0.2)
    made.store.clean_up()
    assert made.store.get_many([b"short", b"long"]) == {b"long": b"value"}
    assert made.store.figures().entries in (1, None)


def test_hits_and_misses_are_counted(made: Made) -> None:
    made.store.set(b"key", b"value", 60)
    before = made.store.figures()
    made.store.get_many([b"key", b"one", b"two"])
    after = made.store.figures()
    assert (after.hits - before.hits, after.misses - before.misses) == (1, 2)
    assert after.state == OK


def test_after_closing_it_behaves_as_empty_or_as_before_and_raises_nothing(made: Made) -> None:
    made.store.set(b"key", b"value", 60)
    made.store.close()
    made.store.get_many([b"key"])
    made.store.set(b"key", b"value", 60)
    made.store.add(b"key", b"value", 60)
    made.store.clean_up()
    made.store.close()


def test_threads_may_do_anything_at_once(made: Made) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(40):
                key = b"%d" % (step % 7)
                made.store.set(key, b"%d of %d" % (step, number), 60)
                made.store.get_many([b"%d" % other for other in range(7)])
                made.store.extend(key, 90)
                made.store.delete([key])
        except BaseException as error:  # noqa: BLE001 - whatever it is, it fails the test
            failed.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert made.store.figures().state == OK
