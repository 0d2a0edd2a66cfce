"""What every store must do: one suite for memory, SQLite and a real Redis."""

from __future__ import annotations

import threading

from gopush.errors import RET_INTERNAL, RET_OK
from gopush.message.rules import PAGE_BYTES
from gopush.model import MID_STEP, Appended, Head, Read, Token, TokenState, mid_at
from tests.message.conftest import OpenStore
from tests.message.subject import Subject

REFUSED = Appended(RET_INTERNAL, 0, 0, False)


def test_mids_are_of_the_clock_and_ascend(subject: Subject) -> None:
    """protocol.md, section 3: a mid is an int64 in units of 100 ns since the epoch, ascending per key."""
    before = mid_at(subject.now())
    first, second, third = subject.append(*[subject.item()] * 3)
    assert before <= first.mid <= mid_at(subject.now())
    assert all(answer.mid % MID_STEP == 0 for answer in (first, second, third))
    assert second == Appended(RET_OK, first.mid + MID_STEP, first.mid, False)
    assert third == Appended(RET_OK, second.mid + MID_STEP, second.mid, False)
    assert first.previous == 0


def test_a_floor_above_the_clock_lifts_the_mid(subject: Subject) -> None:
    ahead = mid_at(subject.now() + 3600)
    first = subject.push()
    lifted = subject.push(floor=ahead)
    assert lifted == Appended(RET_OK, ahead + MID_STEP, first.mid, False)
    assert subject.push(floor=ahead - 160).mid == lifted.mid + MID_STEP
    assert subject.push("other").mid < ahead


def test_bodies_come_back_byte_for_byte(subject: Subject) -> None:
    """protocol.md, section 3: numbers keep every digit, text keeps every character."""
    bodies = [b"007", b"1e400", b"", b'"\\u0000"', "\N{SNOWMAN}".encode(), bytes(range(256)), b"x" * 1_000_000]
    subject.append(*[subject.item(body=body) for body in bodies])
    assert subject.bodies() == bodies


def test_keys_keep_apart(subject: Subject) -> None:
    keys = ["k", "K", "k:1", "k'\"%_\\", "\N{SNOWMAN}", "x" * 255]
    subject.append(*[subject.item(key, key.encode()) for key in keys])
    assert [subject.bodies(key) for key in keys] == [[key.encode()] for key in keys]
    assert len(subject.heads([*keys, "nobody"])) == len(keys) + 1
    assert subject.heads(["nobody"]) == [Head(0, 0)]


def test_a_batch_of_nothing(subject: Subject) -> None:
    assert subject.append() == []
    assert subject.reads([]) == []
    assert subject.heads([]) == []


def test_pages(subject: Subject) -> None:
    mids = [answer.mid for answer in subject.append(*[subject.item(body=b"%d" % n) for n in range(10)])]
    page = subject.page(limit=4)
    assert [message.mid for message in page.messages] == mids[:4]
    assert page.more
    assert page.head == Head(mids[-1], 0)
    assert [message.mid for message in subject.page(after=mids[3], limit=6).messages] == mids[4:]
    assert not subject.page(after=mids[3], limit=6).more
    assert subject.page(after=mids[-1]).messages == []


def test_a_cursor_between_two_mids(subject: Subject) -> None:
    first, second = (answer.mid for answer in subject.append(subject.item(), subject.item()))
    for cursor, expected in [
        (-(2**63), [first, second]),
        (first - 1, [first, second]),
        (first + 1, [second]),
        (second - 1, [second]),
        (second + 1, []),
        (2**63 - 16, []),
    ]:
        assert [message.mid for message in subject.read(after=cursor)] == expected


def test_a_page_is_bounded_in_bytes_but_never_empty(subject: Subject) -> None:
    big = b"x" * (PAGE_BYTES // 5 * 2)
    subject.append(*[subject.item(body=big)] * 3, subject.item(body=b"x" * PAGE_BYTES * 2), subject.item())
    first = subject.page()
    assert (len(first.messages), first.more) == (2, True)
    second = subject.page(after=first.messages[-1].mid)
    assert (len(second.messages), second.more) == (1, True)
    third = subject.page(after=second.messages[-1].mid)
    assert [len(message.body) for message in third.messages] == [PAGE_BYTES * 2]
    assert third.more
    assert len(subject.read()) == 5


def test_reads_of_one_batch_are_answered_in_order(subject: Subject) -> None:
    subject.append(subject.item("a", b"1"), subject.item("b", b"2"))
    pages = subject.reads([Read("b", 0, 9), Read("none", 0, 9), Read("a", 0, 9), Read("b", 0, 9)])
    assert [[message.body for message in page.messages] for page in pages] == [[b"2"], [], [b"1"], [b"2"]]


def test_the_newest_are_kept_and_trimming_is_reported(kind: str, open_store: OpenStore) -> None:
    """protocol.md, section 9: `store`: messages kept a key."""
    subject = open_store(kind, store=3)
    mids = [subject.push(body=b"%d" % n).mid for n in range(3)]
    assert subject.head() == Head(mids[2], 0)
    mids += [answer.mid for answer in subject.append(*[subject.item(body=b"%d" % n) for n in range(3, 8)])]
    assert subject.bodies() == [b"5", b"6", b"7"]
    assert subject.head() == Head(mids[7], mids[4])


def test_keys_that_take_turns_in_a_batch_are_kept_as_if_each_came_alone(kind: str, open_store: OpenStore) -> None:
    subject = open_store(kind, store=3)
    keys = 2 * "abacabbaacabdab"
    expires = 2 * [600, 0, 600, 600, 900, 600, 600, 0, 600, 600, 600, 600, 0, 600, 600]
    appends = [subject.item(keys[n], b"%d" % n, expire=expires[n]) for n in range(30)]
    answers = subject.append(*appends[:15]) + subject.append(*appends[15:])
    for key in "abcd":
        mine = [n for n in range(30) if keys[n] == key]
        mids = [0, *(answers[n].mid for n in mine)]
        assert [answers[n].previous for n in mine] == mids[:-1]
        assert mids == sorted(set(mids))
        kept = [n for n in mine if expires[n]]
        assert subject.bodies(key) == [b"%d" % n for n in kept[-3:]]
        assert subject.head(key) == Head(mids[-1], max((answers[n].mid for n in kept[:-3]), default=0))


def test_what_expired_makes_room_first_and_is_no_trimming(kind: str, open_store: OpenStore) -> None:
    subject = open_store(kind, store=3)
    subject.push(body=b"stays")
    subject.push(body=b"goes", expire=1)
    subject.push(body=b"goes too", expire=1)
    subject.wait(1.1)
    last = subject.push(body=b"new")
    assert subject.bodies() == [b"stays", b"new"]
    assert subject.head() == Head(last.mid, 0)
    subject.push(body=b"newer")
    newest = subject.push(body=b"newest")
    assert subject.bodies() == [b"new", b"newer", b"newest"]
    assert subject.head().last == newest.mid
    assert subject.head().trimmed < last.mid


def test_a_message_is_there_for_its_expire_seconds(subject: Subject) -> None:
    """protocol.md, section 5: expire is in seconds. Never gone before, and at most one second later."""
    subject.push(body=b"long", expire=600)
    began = subject.now()
    answer = subject.push(body=b"short", expire=2)
    stored = subject.now()
    subject.wait(1.5)
    seen = subject.bodies()
    if subject.now() < began + 2:
        assert seen == [b"long", b"short"]
    subject.wait(stored + 2.2 - subject.now())
    assert subject.bodies() == [b"long"]
    assert subject.head() == Head(answer.mid, 0)
    assert subject.page(after=answer.mid).messages == []


def test_a_message_of_no_expiry_is_only_sequenced(subject: Subject) -> None:
    """protocol.md, section 5: expire 0 = do not store."""
    kept = subject.push(body=b"kept")
    passing = subject.push(body=b"passing", expire=0)
    after = subject.push(body=b"after")
    assert passing == Appended(RET_OK, passing.mid, kept.mid, False)
    assert after.previous == passing.mid
    assert subject.bodies() == [b"kept", b"after"]
    assert subject.head() == Head(after.mid, 0)


def test_messages_may_be_kept_for_136_years(subject: Subject) -> None:
    """protocol.md, section 5: expire is a plain decimal from 0 to 2^32-1."""
    assert subject.push(expire=2**32 - 1).ret == RET_OK
    assert subject.bodies() == [b"1"]


def test_a_repeat_answers_as_the_first_time(subject: Subject) -> None:
    first = subject.push(body=b"first")
    second, again, other = subject.append(
        subject.item(body=b"second", id="a"), subject.item(body=b"ignored", id="a"), subject.item(body=b"other", id="b")
    )
    assert again == Appended(RET_OK, second.mid, first.mid, True)
    assert other.previous == second.mid
    assert subject.push(body=b"ignored", id="a") == again
    assert subject.push("elsewhere", id="a").repeat is False
    assert subject.bodies() == [b"first", b"second", b"other"]
    assert subject.head().last == other.mid


def test_without_an_id_nothing_is_a_repeat(subject: Subject) -> None:
    assert not any(answer.repeat for answer in subject.append(*[subject.item()] * 5))
    assert len(subject.read()) == 5


def test_an_id_outlives_its_message(kind: str, open_store: OpenStore) -> None:
    subject = open_store(kind, store=2)
    trimmed, expired, passing = subject.append(
        subject.item(id="trimmed"), subject.item(id="expired", expire=1), subject.item(id="passing", expire=0)
    )
    subject.append(subject.item(), subject.item(), subject.item())
    subject.wait(1.1)
    subject.delete()
    subject.purge()
    again = subject.append(*[subject.item(id=id) for id in ("trimmed", "expired", "passing")])
    assert again == [answer._replace(repeat=True) for answer in (trimmed, expired, passing)]
    assert subject.read() == []


def test_an_id_is_remembered_for_its_time_and_then_forgotten(subject: Subject) -> None:
    subject.append(*[subject.item(id=id, dedupe=dedupe) for id, dedupe in (("short", 2), ("longer", 2), ("long", 60))])
    assert subject.push(id="longer", dedupe=60).repeat
    assert subject.push(id="long", dedupe=1).repeat
    subject.wait(2.2)
    subject.purge()
    assert not subject.push(id="short").repeat
    assert subject.push(id="longer").repeat, "the repeat asked for a longer memory"
    assert subject.push(id="long").repeat, "a repeat never shortens it"


def test_an_own_id_is_shared_by_keys_and_known_again(subject: Subject) -> None:
    """In the same batch, and in later ones."""
    before = subject.push("b")
    a, b, again = subject.append(*[subject.item(key, id="own", dedupe=0) for key in ("a", "b", "a")])
    assert (a.repeat, b.repeat, b.previous) == (False, False, before.mid)
    assert again == a._replace(repeat=True)
    mixed = subject.append(*[subject.item(key, id="own", dedupe=0) for key in ("a\N{SNOWMAN}", "b", "c", "ab", "a")])
    assert [answer.repeat for answer in mixed] == [False, True, False, False, True]
    assert (mixed[1], mixed[4]) == (b._replace(repeat=True), again)
    assert [len(subject.read(key)) for key in ("a", "b", "ab")] == [1, 2, 1]


def test_an_own_id_is_remembered_until_the_latest_deadline_and_then_forgotten(subject: Subject) -> None:
    now = subject.now()
    ends = {"short": now + 0.5, "long": now + 60, "short again": now + 0.5}
    for key, deadline in ends.items():
        subject.push(key, id="own", dedupe=0, deadline=deadline)
    subject.push("k", id="other", dedupe=0, deadline=now + 0.5)
    subject.wait(4)
    subject.purge()
    assert subject.push("long", id="own", dedupe=0).repeat
    assert not subject.push("k", id="other", dedupe=0).repeat


def test_an_own_id_is_forgotten_after_an_hour_whatever_its_deadline(subject: Subject) -> None:
    """That of a web node whose clock is a day ahead: the ids of a whole day would wait for the next one."""
    subject.push(id="own", dedupe=0, deadline=subject.now() + 86400)
    assert subject.push(id="own", dedupe=0).repeat
    if subject.clock:  # test_redis.py asks Redis for the time that is left
        subject.wait(3700)
        subject.purge()
        assert not subject.push(id="own", dedupe=0).repeat


def test_own_ids_by_the_thousand(subject: Subject) -> None:
    items = [subject.item(f"{n}", id="own", dedupe=0) for n in range(2500)]
    first = subject.append(*items)
    assert not any(answer.repeat for answer in first)
    assert subject.append(*items) == [answer._replace(repeat=True) for answer in first]


def test_after_its_deadline_nothing_is_stored(subject: Subject) -> None:
    first = subject.push(id="a")
    late = subject.now() - 1
    answers = subject.append(
        subject.item(deadline=late, id="late"), subject.item(deadline=late, id="a"), subject.item(id="late", body=b"2")
    )
    assert answers[0] == REFUSED
    assert answers[1] == first._replace(repeat=True), "a repeat stores nothing: it may be answered late"
    assert answers[2] == Appended(RET_OK, answers[2].mid, first.mid, False)
    assert subject.bodies() == [b"1", b"2"]
    assert subject.append(subject.item("new", deadline=late)) == [REFUSED]
    assert subject.head("new") == Head(0, 0)


def test_delete_takes_the_messages_and_leaves_the_head(subject: Subject) -> None:
    subject.append(*[subject.item()] * 25)
    head = subject.head()
    assert head.trimmed
    subject.delete()
    assert subject.page() == ([], head, False)
    after = subject.push(body=b"after")
    assert after.previous == head.last
    assert subject.bodies() == [b"after"]
    assert subject.head() == Head(after.mid, head.trimmed)
    subject.delete("nobody")
    assert subject.head("nobody") == Head(0, 0)


def test_a_head_outlives_its_messages_and_then_goes(kind: str, open_store: OpenStore) -> None:
    subject = open_store(kind, head_life=2)
    ahead = mid_at(subject.now() + 60)
    expired = subject.push("expired", expire=1, floor=ahead)
    deleted = subject.push("deleted", floor=ahead)
    passing = subject.push("passing", expire=0, floor=ahead)
    subject.delete("deleted")
    subject.wait(1.2)
    subject.purge()
    for key, answer in (("expired", expired), ("deleted", deleted), ("passing", passing)):
        assert subject.head(key).last == answer.mid
    if subject.clock:  # Redis takes a minute more
        subject.wait(5)
        for _ in range(3):
            subject.purge()
        assert subject.heads(["expired", "deleted", "passing"]) == [Head(0, 0)] * 3


def test_tokens(subject: Subject) -> None:
    now = int(subject.now())
    one, two = Token(b"\xff\x00" * 16, now + 600), Token(b"\x01" * 32, now + 2)
    subject.create_token("k", *one)
    subject.create_token("k", *two)
    assert subject.tokens("k") == {one, two}
    assert subject.tokens("other") == set()
    assert subject.check_token("k", one.digest) == TokenState(True, True)
    assert subject.check_token("k", b"wrong") == TokenState(True, False)
    assert subject.check_token("other", one.digest) == TokenState(False, False)
    subject.wait(2.1)
    subject.purge()
    assert subject.tokens("k") == {one}
    assert subject.check_token("k", two.digest) == TokenState(True, False)
    assert subject.revoke_token("k", two.digest) is False
    assert subject.revoke_token("k", one.digest) is True
    assert subject.revoke_token("k", one.digest) is False
    assert subject.check_token("k", one.digest) == TokenState(False, False)


def test_a_token_made_again_takes_the_later_end(subject: Subject) -> None:
    now = int(subject.now())
    subject.create_token("k", b"d", now + 600)
    subject.create_token("k", b"d", now + 900)
    assert subject.tokens("k") == {Token(b"d", now + 900)}


def test_a_kept_message_creates_the_key(subject: Subject) -> None:
    """protocol.md, section 1: nobody created this key (no token, no kept message)."""
    subject.push("passing", expire=0)
    subject.append(subject.item("kept", expire=600), subject.item("kept", expire=1))
    subject.push("short", expire=1)
    assert subject.check_token("kept", b"x") == TokenState(True, False)
    assert subject.check_token("short", b"x") == TokenState(True, False)
    assert subject.check_token("passing", b"x") == TokenState(False, False)
    subject.wait(1.1)
    assert subject.check_token("kept", b"x") == TokenState(True, False)
    assert subject.check_token("short", b"x") == TokenState(False, False)
    subject.delete("kept")
    assert subject.check_token("kept", b"x") == TokenState(False, False)


def test_a_message_that_was_trimmed_creates_no_key(kind: str, open_store: OpenStore) -> None:
    """It would have lived longer than all that came later."""
    subject = open_store(kind)
    subject.append(subject.item(expire=600), *[subject.item(expire=1)] * 20)
    assert subject.check_token("k", b"x") == TokenState(True, False)
    subject.wait(1.1)
    assert subject.check_token("k", b"x") == TokenState(False, False)


def test_ten_thousand_identical_bodies_are_ten_thousand_messages(kind: str, open_store: OpenStore) -> None:
    subject = open_store(kind, store=10_000)
    for _ in range(10):
        subject.append(*[subject.item(body=b'"same"')] * 1000)
    messages = subject.read()
    assert len({message.mid for message in messages}) == 10_000
    assert {message.body for message in messages} == {b'"same"'}
    assert subject.head() == Head(messages[-1].mid, 0)


def test_what_was_stored_is_there_after_a_restart(subject: Subject) -> None:
    if subject.kind == "memory":
        return
    answers = subject.append(*[subject.item(id=f"{n}") for n in range(25)])
    subject.create_token("k", b"d", int(subject.now()) + 600)
    page, head = subject.page(), subject.head()
    subject.reopen()
    assert (subject.page(), subject.head()) == (page, head)
    assert subject.push(id="3") == answers[3]._replace(repeat=True)
    assert subject.check_token("k", b"d").valid
    assert subject.push().previous == head.last


def test_two_writers_at_once_make_one_chain(kind: str, open_store: OpenStore) -> None:
    subject = open_store(kind, store=2000)
    answers: list[Appended] = []
    writers = [threading.Thread(target=_write, args=(subject, f"w{n}", answers)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    chain = sorted(answers, key=lambda answer: answer.mid)
    assert [answer.previous for answer in chain] == [0, *(answer.mid for answer in chain[:-1])]
    assert [message.mid for message in subject.read()] == [answer.mid for answer in chain]


def _write(subject: Subject, name: str, answers: list[Appended]) -> None:
    for batch in range(40):
        items = [subject.item(id=f"{name}-{batch}-{n}") for n in range(20)]
        got = subject.append(*items)
        assert [answer.mid for answer in got] == sorted(answer.mid for answer in got)
        answers += got


def test_what_is_trimmed_and_what_expires_is_counted(kind: str, open_store: OpenStore) -> None:
    subject = open_store(kind, store=2)
    (numbers,) = subject.store.numbers.values()
    subject.append(*[subject.item(expire=1)] * 3)
    assert (numbers.counters.trimmed, numbers.counters.expired) == (1, 0)
    subject.wait(1.1)
    subject.push()
    assert (numbers.counters.trimmed, numbers.counters.expired) == (1, 2)
    assert (subject.bodies(), numbers.counters.failed) == ([b"1"], 0)
    if kind != "memory":  # which takes no time
        took = {call: sum(seconds.counts) for call, seconds in numbers.seconds.items()}
        assert (took["append"], took["read"]) == (2, 1)


def test_what_a_purge_drops_is_counted_as_expired(open_store: OpenStore) -> None:
    for kind in ("memory", "sqlite"):
        subject = open_store(kind)
        (numbers,) = subject.store.numbers.values()
        subject.append(*[subject.item(expire=1)] * 3, subject.item())
        subject.wait(2)
        for _ in range(3):
            subject.purge()
        assert (numbers.counters.trimmed, numbers.counters.expired) == (0, 3)


def test_a_batch_of_reads_is_bounded_by_the_bytes_of_its_answer(subject: Subject) -> None:
    """Whoever names a room gets one message at least, and asks again for what found none."""
    big = b"x" * 300_000
    for key in "abc":
        subject.append(*[subject.item(key, big)] * 2)
    subject.push("small", b"1")
    reads = [Read(key, 0, 9, room=400_000) for key in ("none", "a", "b", "c", "small")]
    pages = subject.reads(reads)
    assert sum(len(message.body) for page in pages for message in page.messages) <= 400_000
    assert [len(page.messages) for page in pages][:4] == [0, 1, 0, 0]
    assert [page.more for page in pages][:4] == [False, True, True, True]
    assert [len(page.messages) for page in subject.reads(reads[2:4])] == [1, 0]
    assert [len(page.messages) for page in subject.reads([read._replace(room=0) for read in reads])][1:4] == [2, 2, 2]


def test_much_that_has_expired_hides_nothing_behind_it(kind: str, open_store: OpenStore) -> None:
    subject = open_store(kind, store=100)
    subject.append(*[subject.item(body=b"x" * 500_000, expire=1)] * 20, subject.item(body=b"last"))
    subject.wait(1.1)
    for room in (0, 100_000):
        (page,) = subject.reads([Read("k", 0, 9, room=room)])
        assert [message.body for message in page.messages] == [b"last"]
        assert not page.more
