"""Web's own ids: one for many keys, none twice for a key."""

from __future__ import annotations

from gopush.web.publisher import MOST_KEYS, OwnIds


def test_pushes_to_different_keys_share_an_id() -> None:
    ids = OwnIds()
    assert len({ids.take(key) for key in "abc"}) == 1


def test_a_key_never_gets_an_id_twice() -> None:
    ids = OwnIds()
    keys = "aabacbabaabbbcab" * 10
    assert len({(key, ids.take(key)) for key in keys}) == len(keys)


def test_an_id_is_for_so_many_keys_at_most() -> None:
    ids = OwnIds()
    taken = [ids.take(f"k{n}") for n in range(3 * MOST_KEYS + 1)]
    assert [taken.count(id) for id in dict.fromkeys(taken)] == [MOST_KEYS] * 3 + [1]


def test_processes_have_no_id_in_common() -> None:
    one, other = OwnIds(), OwnIds()
    assert {one.take("a") for _ in range(20)}.isdisjoint({other.take("a") for _ in range(20)})
