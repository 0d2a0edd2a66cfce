"""How the Python client subscribes, step by step (protocol.md, sections 1, 4 and 10)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from gopush_client import RefusedError, Subscriber, UnavailableError
from gopush_client.steps import Ask, Call, Give, Open, Pause, Receive, Send, Step
from gopush_client.subscription import Subscription
from gopush_client.wire import Answer, url
from tests.clients_python.walk import Walk

LOOK_UP = Answer(200, b'{"ret":0,"data":{"server":"[::1]:6969"}}')
SILENCE = "silence"


class EnoughError(Exception):
    """The test has seen what it wants."""


def bulk(mid: int, text: str = "1") -> bytes:
    message = f'{{"msg":{text},"mid":{mid},"gid":0}}'.encode()
    return b"$%d\r\n%b\r\n" % (len(message), message)


class Comet:
    """Says on each connection what is next in `script`: bytes, b"" (the end), SILENCE, OSError; then ends the test."""

    def __init__(self, *script: Any, kept: bytes = b'{"ret":0}') -> None:
        self.script = list(script)
        self.kept = kept
        self.given: list[int] = []
        self.gaps = 0
        self.wrong: dict[str, Exception] = {}
        """What the user's callbacks raise, when they hear of a gap or of this state."""
        self.states: list[str] = []
        self.reasons: list[str] = []
        self.walk = Walk(self.answer)

    def answer(self, step: Step) -> Any:
        if isinstance(step, Call):
            return LOOK_UP if step.path.startswith("/1/server/get") else Answer(200, self.kept)
        if isinstance(step, Give):
            self.given.append(step.value.mid)
        if isinstance(step, Ask):
            return step.function()
        if isinstance(step, Receive):
            if not self.script:
                raise EnoughError
            said = self.script.pop(0)
            if isinstance(said, OSError):
                raise said
            if said is SILENCE:
                self.walk.now += step.seconds
                return None
            return said
        return None

    def subscribe(self, since: int | None = None, token: str | Callable[[], Any] = "", heartbeat: int = 30) -> None:
        def err(what: str) -> None:
            if what in self.wrong:
                raise self.wrong[what]

        def gap() -> None:
            self.gaps += 1
            err("gap")

        def hear(state: str, why: str) -> None:
            self.states.append(state)
            self.reasons += [why] if state == "away" else []
            err(state)

        subscription = Subscription(
            url=url("web:8090"),
            key="k",
            heartbeat=heartbeat,
            token=token,
            cursor=since,
            comet_tls=False,
            on_gap=gap,
            on_state=hear,
            clock=self.walk.clock,
            random=lambda: 0.5,
        )
        with pytest.raises(EnoughError):
            self.walk.run(subscription.steps())

    @property
    def requests(self) -> list[bytes]:
        return [sent.data for sent in self.walk.of(Send) if sent.data != b"h"]

    @property
    def pauses(self) -> list[float]:
        return [pause.seconds for pause in self.walk.of(Pause)]


def cursor(request: bytes) -> bytes:
    return request.split(b"\r\n")[-2]


def test_messages_are_given_once_and_the_next_connection_goes_on_behind_them() -> None:
    comet = Comet(b"+h\r\n" + bulk(16), bulk(32) + bulk(16), b"", b"+h\r\n" + bulk(32) + bulk(48), b"")
    comet.subscribe(since=0)
    assert comet.given == [16, 32, 48]
    assert [cursor(request) for request in comet.requests] == [b"0", b"32", b"48"]
    assert comet.requests[0] == b"*6\r\n$3\r\nsub\r\n$1\r\nk\r\n$2\r\n30\r\n$0\r\n\r\n$5\r\n0.1.0\r\n$1\r\n0\r\n"
    assert comet.walk.of(Open)[0][:3] == ("::1", 6969, False)


def test_frames_may_be_cut_anywhere_and_text_is_kept() -> None:
    text = '{"a":"\u00fc\\r\\n","mid":7,"gid":0,"n":1e400}'
    message = f'{{"msg":{text},"mid":160,"gid":0}}'.encode()
    whole = b"+h\r\n$%d\r\n%b\r\n" % (len(message), message)
    comet = Comet(*(whole[at : at + 1] for at in range(len(whole))))
    comet.subscribe(since=0)
    (given,) = comet.walk.of(Give)
    assert (given.value.mid, given.value.text) == (160, text)


def test_what_python_cannot_hold_is_a_value_error_and_ends_nothing() -> None:
    comet = Comet(b"+h\r\n" + bulk(16, "[" * 50_000 + "]" * 50_000) + bulk(32, "1" * 5000) + bulk(48))
    comet.subscribe(since=0)
    assert comet.given == [16, 32, 48]
    for given in comet.walk.of(Give)[:2]:
        with pytest.raises(ValueError, match=r"deeply|digits"):
            _ = given.value.data


def test_what_is_new_begins_behind_what_is_kept_before_the_first_connection() -> None:
    kept = b'{"ret":0,"data":{"msgs":[{"msg":{"mid":5},"mid":16,"gid":0},{"msg":1,"mid":96,"gid":0}]}}'
    comet = Comet(b"+h\r\n", b"", b"+h\r\n" + bulk(112), kept=kept)
    comet.subscribe()
    assert comet.given == [112]
    assert [cursor(request) for request in comet.requests] == [b"96", b"96"]
    assert [call.path for call in comet.walk.of(Call) if call.long] == ["/1/msg/get?k=k&m=0&head=1"]


@pytest.mark.parametrize("since", [None, 0])
def test_who_was_subscribed_before_its_first_message_hears_of_a_gap(since: int | None) -> None:
    """From 0 on there is none; 15 is below every mid, and gopush rounds it to 16."""
    comet = Comet(b"", b"+h\r\n", b"", b"+h\r\n+g\r\n" + bulk(16), b"")
    comet.subscribe(since)
    assert [cursor(request) for request in comet.requests] == [b"0", b"0", b"15", b"16"]
    assert (comet.given, comet.gaps) == ([16], 1)


def test_a_moved_key_is_followed_at_once_but_not_round_and_round() -> None:
    comet = Comet(b"-n\r\n", b"-n\r\n", b"+h\r\n", b"-n\r\n", b"+h\r\n")
    comet.subscribe(since=0)
    assert len(comet.pauses) == 1  # before the third attempt: two comets say no
    assert len(comet.requests) == 4


def test_pauses_grow_with_a_bound_and_a_long_subscription_ends_that() -> None:
    comet = Comet(*[b""] * 9, b"+h\r\n", SILENCE, b"+h\r\n", b"")
    comet.subscribe(since=0)
    assert comet.pauses == [0.75 * bound for bound in (0.5, 1, 2, 4, 8, 16, 30, 30, 30, 0.5)]


def test_why_it_is_away_is_said_also_where_the_error_has_no_words() -> None:
    comet = Comet(TimeoutError(), OSError("reset"), ConnectionRefusedError(111, "Connection refused"), b"-l\r\n")
    comet.subscribe(since=0)
    full = "the key has as many connections as it may have (-l)"
    assert comet.reasons == ["TimeoutError", "reset", "Connection refused", full]


@pytest.mark.parametrize("what", ["gap", "connecting", "live", "away"])
@pytest.mark.parametrize("wrong", [OSError(28, "No space left on device"), UnavailableError("no push"), KeyError("x")])
def test_what_a_callback_raises_ends_it_and_is_no_lost_connection(what: str, wrong: Exception) -> None:
    """It came back for ever, gave no message and told nobody."""
    comet = Comet(b"+h\r\n+g\r\n" + bulk(16), b"")
    comet.wrong[what] = wrong
    with pytest.raises(type(wrong)) as caught:
        comet.subscribe(since=0)
    assert caught.value is wrong
    assert comet.states[-1] == ("live" if what == "gap" else what)


def test_who_finds_the_key_full_comes_back_later() -> None:
    comet = Comet(b"-l\r\n")
    comet.subscribe(since=0)
    assert comet.pauses == [20.0]


@pytest.mark.parametrize("reply", [b"-a\r\n", b"-c\r\n"])
def test_a_refused_token_is_fetched_anew_once(reply: bytes) -> None:
    tokens = iter(["old", "new", "third"])
    comet = Comet(reply, b"+h\r\n", b"", b"+h\r\n", b"", reply, b"+h\r\n")
    comet.subscribe(since=0, token=lambda: next(tokens))
    assert [request.split(b"\r\n")[8] for request in comet.requests[:4]] == [b"old", b"new", b"new", b"new"]
    assert comet.requests[4].split(b"\r\n")[8] == b"third"

    comet = Comet(reply, reply)
    with pytest.raises(RefusedError, match=r"token|created"):
        comet.subscribe(since=0, token=lambda: "same")
    comet = Comet(reply)
    with pytest.raises(RefusedError) as caught:
        comet.subscribe(since=0, token="fixed")
    assert caught.type is RefusedError


def test_a_function_that_has_no_token_shows_none() -> None:
    comet = Comet(b"+h\r\n")
    comet.subscribe(token=lambda: None)
    assert comet.requests[0].split(b"\r\n")[7:9] == [b"$0", b""]
    assert [call.path for call in comet.walk.of(Call)][1] == "/1/msg/get?k=k&m=0&head=1"


def test_what_is_wrong_is_not_repeated() -> None:
    with pytest.raises(RefusedError, match="-p"):
        Comet(b"-p\r\n").subscribe(since=0)


def test_a_token_refused_by_the_first_read_is_fetched_anew() -> None:
    comet = Comet(kept=b'{"ret":65534,"why":"the token is missing"}')
    with pytest.raises(RefusedError, match="the token is missing"):
        comet.subscribe(token=lambda: "x")
    assert len(comet.walk.of(Ask)) == 2


def test_heartbeats_are_sent_and_a_dead_connection_is_left() -> None:
    comet = Comet(b"+h\r\n", SILENCE, b"+h\r\n", SILENCE, SILENCE, b"+h\r\n")
    comet.subscribe(since=0)
    assert [sent.data for sent in comet.walk.of(Send)].count(b"h") == 2
    assert len(comet.requests) == 2
    assert comet.states == ["connecting", "live", "away", "connecting", "live"]
    waits = [step.seconds for step in comet.walk.of(Receive)]
    assert waits[1] == pytest.approx(30)
    assert waits[4] == pytest.approx(10)


def test_a_user_who_takes_a_minute_for_a_message_has_not_lost_the_connection() -> None:
    comet = Comet(b"+h\r\n" + bulk(16), b"+h\r\n" + bulk(32))
    answer = comet.walk._answer

    def slowly(step: Step) -> Any:
        if isinstance(step, Give):
            comet.walk.now += 60
        return answer(step)

    comet.walk._answer = slowly
    comet.subscribe(since=0)
    assert comet.given == [16, 32]
    assert len(comet.requests) == 1


@pytest.mark.parametrize("seconds", [1, 4, 12, 30])
def test_a_user_who_needs_time_for_each_message_of_a_piece_says_meanwhile_that_it_is_there(seconds: float) -> None:
    """The comet closes who says nothing for 35 s."""
    piece = b"".join(bulk(16 * number) for number in range(1, 61))
    comet = Comet(b"+h\r\n", SILENCE, b"+h\r\n" + piece, *[SILENCE] * 60)
    answer, said = comet.walk._answer, [comet.walk.now]

    def slowly(step: Step) -> Any:
        if isinstance(step, Give):
            comet.walk.now += seconds
            if len(comet.given) == 59:
                raise EnoughError
        if isinstance(step, Send):
            said.append(comet.walk.now)
        return answer(step)

    comet.walk._answer = slowly
    comet.subscribe(since=0)
    assert len(comet.requests) == 1
    assert min(after - before for before, after in pairwise(said[1:])) >= 5
    assert max(after - before for before, after in pairwise([*said, comet.walk.now])) <= 35


def test_a_user_who_is_busy_has_the_rest_of_the_backlog_read_meanwhile() -> None:
    """The comet closes who reads nothing of it for ten seconds."""
    comet = Comet(b"+h\r\n" + b"".join(bulk(16 * number) for number in range(1, 7)), bulk(112)[:9], bulk(112)[9:])
    answer, read = comet.walk._answer, []

    def slowly(step: Step) -> Any:
        if isinstance(step, Give):
            comet.walk.now += 4
        if isinstance(step, Receive):
            read.append(comet.walk.now)
        return answer(step)

    comet.walk._answer = slowly
    comet.script += [SILENCE] * 5
    comet.subscribe(since=0)
    assert comet.given == [16, 32, 48, 64, 80, 96, 112]
    assert [int(at - 1000) for at in read[:5]] == [0, 8, 8, 8, 16]


def test_a_fast_flow_is_given_as_it_comes() -> None:
    """Something new is there whenever it reads: that is no reason to read on before the user gets what has come."""
    pieces = [b"+h\r\n", *(bulk(16 * number) for number in range(1, 40_001))]
    comet = Comet(*pieces)
    answer, behind = comet.walk._answer, []

    def flow(step: Step) -> Any:
        if isinstance(step, Receive):
            comet.walk.now += 0.0005
        if isinstance(step, Give):
            behind.append(len(pieces) - 1 - len(comet.script) - len(comet.given))
        return answer(step)

    comet.walk._answer = flow
    comet.subscribe(since=0)
    assert len(comet.given) == 40_000
    assert set(behind) == {1}


def test_a_user_who_is_busy_in_a_fast_flow_has_the_next_message_soon() -> None:
    piece = b"".join(bulk(16 * number) for number in range(1, 11))
    comet = Comet(b"+h\r\n" + piece, *(bulk(16 * number) for number in range(11, 10_000)))
    answer, given = comet.walk._answer, []

    def flow(step: Step) -> Any:
        if isinstance(step, Receive):
            comet.walk.now += 0.0005
        if isinstance(step, Give):
            given.append(comet.walk.now)
            comet.walk.now += 6 if len(given) < 10 else 0
        return answer(step)

    comet.walk._answer = flow
    comet.subscribe(since=0)
    assert len(comet.given) == 9_999
    assert max(after - before for before, after in pairwise(given)) <= 6.1


def test_gaps_are_reported() -> None:
    comet = Comet(b"+h\r\n+g\r\n" + bulk(64))
    comet.subscribe(since=16)
    assert (comet.gaps, comet.given) == (1, [64])


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n",
        b"$x\r\n",
        b"$67108865\r\n",
        b"$9999999999999999999999999999\r\n",
        b"x" * 40,
        b"$2\r\n{}\r\n",
        b'$5024\r\n{"msg":1,"mid":%b,"gid":0}\r\n' % (b"9" * 5000),
    ],
)
def test_what_is_no_comet_is_left(said: bytes) -> None:
    comet = Comet(said, b"+h\r\n")
    comet.subscribe(since=0)
    assert len(comet.requests) == 2
    assert comet.states[-1] == "live"


def test_no_comet_and_a_failing_web_are_waited_for() -> None:
    """Nor does it end where something else answers for web, as the network of a hotel does."""
    said = (b'{"ret":1001}', b"<html>", b'{"ret":1e400}')
    answers: list[Any] = [OSError("refused"), *(Answer(status, b"no") for status in (503, 302, 303, 307, 511))]
    answers += [Answer(status, b"<html>", plain=False) for status in (301, 400, 401, 403, 404)]
    answers += [Answer(200, body, plain=False) for body in said]
    answers += [Answer(404, b"404 page not found\n")]
    comet = Comet(b"+h\r\n")
    walk_answer = comet.walk._answer

    def failing(step: Step) -> Any:
        if isinstance(step, Call) and answers:
            answer = answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return answer
        return walk_answer(step)

    comet.walk._answer = failing
    comet.subscribe(since=0)
    assert len(comet.pauses) == 15
    assert comet.states[-1] == "live"


@pytest.mark.parametrize("status", [301, 404])
def test_a_page_that_is_not_there_is_not_asked_for_again(status: int) -> None:
    comet = Comet()
    comet.walk._answer = lambda step: Answer(status, b"Not Found: no such call") if isinstance(step, Call) else None
    with pytest.raises(RefusedError, match=str(status)):
        comet.subscribe(since=0)


@pytest.mark.parametrize(
    ("since", "cursor"), [(None, None), (0, 0), ("0", 0), ("17000000000000016", 17000000000000016)]
)
def test_a_mid_may_be_text_as_in_javascript(since: int | str | None, cursor: int | None) -> None:
    assert Subscriber("http://web", "k", since=since).cursor == cursor


@pytest.mark.parametrize("since", ["", "abc", "-1", " 5", "1_0", "5\n", "\u0665", -1, 1.5, True, b"5", 1 << 70])
def test_what_is_no_mid_is_said_at_once(since: Any) -> None:
    """Text was sent, and a TypeError only when a message came."""
    with pytest.raises(ValueError, match="since is no mid"):
        Subscriber("http://web", "k", since=since)


@pytest.mark.parametrize("token", [5, None, b"t"])
def test_what_is_no_token_is_said_at_once(token: Any) -> None:
    with pytest.raises(TypeError, match="token"):
        Subscriber("http://web", "k", token=token)
