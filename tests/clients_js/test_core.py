"""How gopush.js subscribes, step by step (protocol.md, sections 2, 4 and 10), as shipped and minified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import quickjs

from tests.clients_js.minify import minify
from tests.pages import blocks

HERE = Path(__file__).resolve().parent
CLIENT = HERE.parents[1] / "clients" / "js" / "gopush.js"
MID = "17000000000000016"
"""As a number it would be another one."""


def message(mid: str | int, body: str = "1") -> str:
    return f'{{"msg":{body},"mid":{mid},"gid":0}}'


class World:
    """A page that has loaded gopush.js."""

    def __init__(self, source: str) -> None:
        self._context = quickjs.Context()
        self._context.eval((HERE / "world.js").read_text())
        self._context.eval(source)

    def run(self, code: str) -> Any:
        """What the page does, and all that follows at once."""
        result = self._context.eval(code)
        while self._context.execute_pending_job():
            pass
        return result

    def subscribe(self, options: str = "{}") -> None:
        self.run(f"const mine = subscribe({options})")

    def after(self, seconds: float) -> None:
        """Time passes."""
        self.run(f"var end = now + {seconds * 1000}")
        while self.run("step(end)"):
            pass

    def get(self, code: str) -> Any:
        return json.loads(self.run(f"JSON.stringify({code})"))

    def say(self, text: str, where: str = "sockets") -> None:
        self.run(f"{where}[{where}.length - 1].say({json.dumps(text)})")

    def end(self, where: str = "sockets") -> None:
        self.run(f"{where}[{where}.length - 1].end()")

    def heard(self) -> Any:
        """What the page was given since the last time."""
        return self.get("heard.splice(0)")

    def query(self) -> dict[str, list[str]]:
        """What the last WebSocket asked for."""
        return parse_qs(urlsplit(str(self.run("sockets[sockets.length - 1].url"))).query)


@pytest.fixture(params=["shipped", "minified"])
def world(request: pytest.FixtureRequest) -> World:
    source = CLIENT.read_text()
    return World(minify(source) if request.param == "minified" else source)


def test_it_has_at_most_6_kib() -> None:
    assert len(minify(CLIENT.read_text()).encode()) <= 6 * 1024


def test_mids_stay_text_and_a_new_connection_goes_on_behind_the_last(world: World) -> None:
    world.run('web["/1/msg/get"] = \'{"ret":0,"data":{"msgs":[{"msg":{"mid":5},"mid":17000000000000000,"gid":0}]}}\'')
    world.subscribe()
    assert world.get("calls") == ["/1/server/get?k=k%261&why=1&p=1", "/1/msg/get?k=k%261&why=1&m=0&head=1"]
    assert world.run("sockets[0].url").startswith("ws://comet:6968/sub?")
    assert world.query() == {"key": ["k&1"], "ver": ["1"], "mid": ["17000000000000000"], "heartbeat": ["90"]}
    world.say("+h\r\n")
    world.say(message(MID, '{"n":12345678901234567890,"t":"\\u00fc"}'))
    world.say(message("17000000000000000"))
    world.say(message(MID))
    assert world.heard() == [
        "connecting",
        "live",
        MID + ' {"n":12345678901234567890,"t":"\\u00fc"} {"n":12345678901234567000,"t":"\u00fc"}',
    ]
    assert world.run("mine.mid") == MID
    world.end()
    assert world.heard() == ["away the connection ended"]
    world.after(1)
    assert world.query()["mid"] == [MID]
    assert len(world.get("calls")) == 3
    world.say("+h\r\n")
    world.say("+g\r\n")
    world.say(message("100000000000000000"))
    assert world.heard() == ["connecting", "live", "gap", "100000000000000000 1 1"]


@pytest.mark.parametrize(
    ("url", "web", "websocket"),
    [
        ("'HTTP://web'", "", "ws://comet"),
        ("'HTTPS://web'", "https://web", "wss://comet"),
        ("'https://web//'", "https://web", "wss://comet"),
        ("'//web'", "https://web", "wss://comet"),
        ("''", "https://page", "wss://comet"),
        ("new URL('https://web/')", "https://web", "wss://comet"),
    ],
)
def test_the_protocol_of_web_is_that_of_comets_however_it_is_named(
    world: World, url: str, web: str, websocket: str
) -> None:
    """A token went in the clear to the comet of a page of https."""
    world.run(f"gopush.subscribe({url}, 'k', {{ since: 0 }})")
    assert world.get("calls")[0].startswith(f"{web}/1/server/get?")
    assert world.run("sockets[0].url").startswith(f"{websocket}:6968/sub?")


def test_where_there_is_no_page_the_address_is_whole(world: World) -> None:
    world.run("delete globalThis.location")
    world.subscribe("{ since: 0 }")
    assert world.run("sockets.length") == 1
    with pytest.raises(quickjs.JSException, match="Invalid URL"):
        world.run("gopush.subscribe('//web', 'k')")


def test_a_callback_may_use_what_subscribe_gives(world: World) -> None:
    world.run("const early = subscribe({ since: 0, onState: state => heard.push(`${state} ${early.mid}`) })")
    assert world.heard() == ["connecting 0"]
    world.run("const left = subscribe({ since: 0 }); left.close()")
    assert world.heard() == ["closed"]


@pytest.mark.parametrize(("since", "mid"), [("0", "0"), (f"'{MID}'", MID)])
def test_since(world: World, since: str, mid: str) -> None:
    world.subscribe(f"{{ since: {since} }}")
    assert world.query()["mid"] == [mid]
    assert len(world.get("calls")) == 1


@pytest.mark.parametrize("options", ["{}", "{ since: 0 }"])
def test_who_was_subscribed_before_its_first_message_hears_of_a_gap(world: World, options: str) -> None:
    """From 0 on there is none; 15 is below every mid, and gopush rounds it to 16."""
    world.subscribe(options)
    assert world.query()["mid"] == ["0"]
    world.say("+h\r\n")
    world.end()
    world.after(1)
    assert world.query()["mid"] == ["15"]
    world.say("+h\r\n")
    world.say("+g\r\n")
    world.say(message(16))
    assert world.heard()[-2:] == ["gap", "16 1 1"]


def test_a_stream_cut_before_its_first_message_hears_of_a_gap_too(world: World) -> None:
    world.subscribe("{ transport: 'sse', since: 0 }")
    world.say("retry: 1000\nid: 0\n\n", "streams")
    world.end("streams")
    world.after(2)
    assert world.get("calls") == [f"/sub?key=k%261&ver=1&mid={mid}&heartbeat=30" for mid in (0, 15)]


def test_who_was_never_subscribed_asks_for_all_once_more(world: World) -> None:
    world.subscribe("{ since: 0 }")
    world.say("-n\r\n")
    assert world.query()["mid"] == ["0"]


def test_a_moved_key_is_followed_at_once_but_not_round_and_round(world: World) -> None:
    world.subscribe("{ since: 0 }")
    world.say("-n\r\n")
    assert world.run("sockets.length") == 2
    world.say("-n\r\n")
    assert world.run("sockets.length") == 2
    world.after(1)
    world.say("+h\r\n")
    world.say("-n\r\n")
    assert world.run("sockets.length") == 4
    assert world.run("sockets[2].closed")


def test_tokens_are_fetched_anew_once_where_one_is_refused(world: World) -> None:
    world.run("let tokens = 0")
    world.subscribe("{ since: 0, token: async refusal => `${++tokens}${refusal}` }")
    assert world.query()["token"] == ["1"]
    world.say("-a\r\n")
    assert world.query()["token"] == ["2-a"]
    world.say("+h\r\n")
    world.end()
    world.after(1)
    assert world.query()["token"] == ["2-a"]
    world.say("-c\r\n")
    assert world.query()["token"] == ["3-c"]
    world.say("-a\r\n")
    world.after(100)
    assert world.run("sockets.length") == 4
    assert world.heard()[-1] == "closed -a"


def test_a_token_that_cannot_be_fetched_is_asked_for_again(world: World) -> None:
    world.run("let tokens = 0")
    world.subscribe("{ since: 0, token: () => { if (!tokens++) throw new Error('no service'); return 't'; } }")
    assert world.heard() == ["connecting", "away no service"]
    world.after(1)
    assert world.query()["token"] == ["t"]


@pytest.mark.parametrize(
    ("wrong", "why"), [("", "undefined"), ("null", "null"), ("{ reply: 5 }", "5"), ("'no service'", "no service")]
)
def test_a_token_may_be_refused_with_anything(world: World, wrong: str, why: str) -> None:
    world.run("let tokens = 0")
    world.subscribe(f"{{ since: 0, token: () => tokens++ ? 't' : Promise.reject({wrong}) }}")
    assert world.heard() == ["connecting", f"away {why}"]
    world.after(1)
    assert world.query()["token"] == ["t"]


@pytest.mark.parametrize("transport", ["ws", "sse"])
@pytest.mark.parametrize("options", ["key: 'a\\ud800'", "token: '\\ud800'"])
def test_half_a_surrogate_pair_is_not_tried_again(world: World, options: str, transport: str) -> None:
    """It cannot be written as UTF-8, now or later."""
    world.subscribe(f"{{ {options}, since: 0, transport: '{transport}' }}")
    world.after(100)
    connecting, closed = world.heard()
    assert connecting == "connecting"
    assert closed.startswith("closed ")
    assert world.get("timers") == []


@pytest.mark.parametrize("reply", ["-p", "-a", "-c"])
def test_what_must_not_be_repeated_is_not(world: World, reply: str) -> None:
    world.subscribe("{ since: 0, token: 'fixed' }")
    world.say(reply + "\r\n")
    world.after(1000)
    assert world.heard() == ["connecting", f"closed {reply}"]
    assert world.run("sockets.length") == 1
    assert world.get("Object.keys(listeners)") == []
    assert world.get("timers") == []


@pytest.mark.parametrize("since", ["", "since: 160,"])
@pytest.mark.parametrize("message_came", [False, True])
def test_a_mid_that_gopush_does_not_know_any_more_is_forgotten_once(
    world: World, since: str, message_came: bool
) -> None:
    """Its clock was ahead, or its store is another one: that is no mistake of the page's, which was live before."""
    world.run('web["/1/msg/get"] = \'{"ret":0,"data":{"msgs":[{"msg":null,"mid":160,"gid":0}]}}\'')
    world.subscribe(f"{{ {since} transport: 'ws' }}")
    world.say("+h\r\n")
    if message_came:
        world.say(message(176))
    world.end()
    world.after(1)
    world.heard()
    world.run('web["/1/msg/get"] = \'{"ret":0,"data":{"msgs":[{"msg":null,"mid":32,"gid":0}]}}\'')
    world.say("-p\r\n")
    assert world.heard() == ["gap", "away -p"]
    world.after(1)
    assert world.query()["mid"] == ["32"]
    world.say("+h\r\n")
    world.say(message(48))
    assert world.heard() == ["connecting", "live", "48 1 1"]
    for _ in range(2):
        world.say("-p\r\n")
        world.after(2)
    assert world.heard() == ["gap", "away -p", "connecting", "closed -p"]


def test_who_closes_it_because_its_mid_is_forgotten_hears_no_more(world: World) -> None:
    world.subscribe("{ since: 16, onGap: () => mine.close() }")
    world.say("+h\r\n")
    world.say("-p\r\n")
    assert world.heard() == ["connecting", "live", "closed"]
    assert world.get("timers") == []


@pytest.mark.parametrize("transport", ["ws", "sse"])
@pytest.mark.parametrize("answer", ["-p", "-a"])
def test_a_renewed_token_that_is_none_leaves_the_mid_to_whoever_goes_on(
    world: World, transport: str, answer: str
) -> None:
    """The mid, which might have been what was wrong, was gone with the subscription, and so was what came meanwhile."""
    where = "sockets" if transport == "ws" else "streams"

    def refuse(reply: str) -> None:
        world.say(f"{reply}\r\n" if transport == "ws" else f'event: refused\ndata: {{"reason":"{reply}"}}\n\n', where)
        world.after(2)

    world.run("const tokens = ['good', '<html>']")
    world.subscribe(f"{{ since: 176, transport: '{transport}', token: () => tokens.shift() }}")
    world.say("+h\r\n" if transport == "ws" else ":\n\n", where)
    refuse("-a")
    world.run('web["/1/msg/get"] = \'{"ret":65534,"why":"this key wants a token"}\'')
    refuse("-p")
    if transport == "sse":
        refuse(answer)
    assert world.heard()[-1].startswith("closed ")
    assert world.run("mine.mid") == "176"


def test_a_token_that_cannot_be_written_ends_it_and_the_mid_stays(world: World) -> None:
    world.run("const tokens = ['good', '\\ud800']")
    world.subscribe("{ since: 16, token: () => tokens.shift() }")
    world.say("+h\r\n")
    world.say("-a\r\n")
    assert world.heard()[-1].startswith("closed ")
    assert world.run("mine.mid") == "16"


def test_the_token_of_the_documents_comes_back_from_an_error_of_its_site(world: World) -> None:
    """The words of a 502 were shown as a token, which no gopush takes: that ended the subscription for good."""
    (documented,) = blocks("docs/security.md", "js")
    world.run("""
        const AbortSignal = { timeout() {} }, toWeb = fetch;
        const answers = [[502, "<html>\\r\\nBad Gateway"], [200, "good\\n"]];
        fetch = (url, options) => {
          if (url !== "/token") return toWeb(url, options);
          const [status, text] = answers.shift();
          return Promise.resolve({ ok: status === 200, status, text: () => Promise.resolve(text) });
        };
    """)
    world.run(documented)
    world.subscribe("{ token, since: 0 }")
    assert world.heard() == ["connecting", "away no token: HTTP 502"]
    world.after(1)
    assert world.query()["token"] == ["good"]


def test_a_key_that_cannot_be_is_said(world: World) -> None:
    world.run('web["/1/server/get"] = \'{"ret":65534,"why":"k is empty"}\'')
    world.subscribe()
    assert world.heard() == ["connecting", "closed k is empty"]


def test_a_full_key_is_left_for_long(world: World) -> None:
    world.subscribe("{ since: 0 }")
    world.say("-l\r\n")
    world.after(19)
    assert world.run("sockets.length") == 1
    world.after(2)
    assert world.run("sockets.length") == 2


@pytest.mark.parametrize("status", [204, 403, 502])
def test_what_a_proxy_says_in_the_place_of_a_look_up_has_its_status(world: World, status: int) -> None:
    world.run(f"web.lookups = {status}; web.refusal = 'text/plain'")
    world.subscribe()
    assert world.heard() == ["connecting", f"away HTTP {status}"]
    world.run("web.lookups = 200")
    world.after(1)
    assert world.run("sockets.length") == 1


def test_pauses_grow_with_a_bound_and_a_long_subscription_ends_that(world: World) -> None:
    world.run('web["/1/server/get"] = null')
    world.subscribe("{ since: 0, transport: 'ws' }")
    world.after(200)
    assert world.get("calls.length") == 7 + 7
    world.run('web[\'/1/server/get\'] = \'{"ret":0,"data":{"server":"comet:6968"}}\'')
    while not world.run("sockets.length"):
        world.after(1)
    world.say("+h\r\n")
    world.after(11)
    world.end()
    world.after(0.3)
    assert world.run("sockets.length") == 1
    world.after(0.2)
    assert world.run("sockets.length") == 2


def test_heartbeats_are_sent_and_a_dead_connection_is_left(world: World) -> None:
    world.subscribe("{ since: 0 }")
    world.say("+h\r\n")
    world.after(30)
    assert world.get("sockets[0].sent") == ["h"]
    world.after(9)
    world.say("+h\r\n")
    world.after(21)
    assert world.get("sockets[0].sent") == ["h", "h"]
    assert not world.run("sockets[0].closed")
    world.after(11)
    assert world.run("sockets[0].closed")
    assert world.run("sockets.length") == 2


def test_a_comet_that_says_nothing_is_left(world: World) -> None:
    world.subscribe("{ since: 0, transport: 'ws' }")
    world.after(11)
    assert world.run("sockets[0].closed")
    assert world.run("sockets.length") == 2


def test_who_comes_back_to_the_page_or_the_network_does_not_wait(world: World) -> None:
    world.subscribe("{ since: 0, transport: 'ws' }")
    for _ in range(8):
        world.end()
        world.after(30)
    count = world.run("sockets.length")
    world.end()
    world.run("listeners.online()")
    assert world.run("sockets.length") == count + 1
    world.say("+h\r\n")
    world.run("document.hidden = true; listeners.visibilitychange()")
    assert world.get("sockets[sockets.length - 1].sent") == []
    world.run("document.hidden = false; listeners.visibilitychange()")
    assert world.get("sockets[sockets.length - 1].sent") == ["h"]
    world.after(11)
    assert world.run(f"sockets[{count}].closed")


@pytest.mark.parametrize("what", ["look-up", "socket", "stream"])
def test_what_the_network_swallowed_is_begun_anew_once_it_is_back(world: World, what: str) -> None:
    """Also a WebSocket, which may well come through now."""
    if what == "look-up":
        world.run("web['/1/server/get'] = 'slow'")
    world.subscribe(f"{{ since: 0, transport: '{'sse' if what == 'stream' else ''}' }}")
    count = world.get("[calls.length, sockets.length]")
    world.after(5)
    world.run("listeners.online()")
    assert world.get("[calls.length, sockets.length]") == [count[0] + 1, 2 * count[1]]
    assert world.get("calls[0] === calls[1]")


def test_who_comes_back_while_an_attempt_is_under_way_does_not_wait_after_it(world: World) -> None:
    """But once."""
    world.run("web['/1/server/get'] = null")
    world.subscribe("{ since: 0, transport: 'ws' }")
    world.after(100)
    world.run("web['/1/server/get'] = 'slow'")
    while not world.run("streams.length"):
        world.after(1)
    count = world.run("calls.length")
    world.run("listeners.visibilitychange()")
    assert world.run("calls.length") == count
    world.run("web['/1/server/get'] = null; streams[0].next.failed(new Error('gone'))")
    assert world.run("calls.length") == count + 1
    world.after(14)
    assert world.run("calls.length") == count + 1


def test_who_looked_at_a_page_that_is_live_comes_back_as_everybody_does(world: World) -> None:
    world.subscribe("{ since: 0 }")
    world.say("+h\r\n")
    world.run("listeners.visibilitychange()")
    world.say("+h\r\n")
    world.after(4)
    world.end()
    assert world.run("sockets.length") == 1
    world.after(0.5)
    assert world.run("sockets.length") == 2


@pytest.mark.parametrize("transport", ["ws", "sse"])
def test_nobody_comes_back_earlier_than_gopush_wants(world: World, transport: str) -> None:
    where = {"ws": "sockets", "sse": "streams"}[transport]
    refusal = {"ws": "-l\r\n", "sse": 'retry: 20000\nid: 0\n\nevent: refused\ndata: {"reason":"limit"}\n\n'}[transport]
    world.subscribe(f"{{ since: 0, transport: '{transport}' }}")
    world.say(refusal, where)
    world.run("listeners.online()")
    world.after(19)
    assert world.run(f"{where}.length") == 1
    world.after(2)
    assert world.run(f"{where}.length") == 2
    world.run("mine.close()")
    assert world.get("timers") == []


def test_who_was_there_for_some_seconds_is_back_at_once_however_often_that_was_so(world: World) -> None:
    """A server that is killed again and again: each time it stood, and that is what counts."""
    world.subscribe("{ since: 0, transport: 'ws' }")
    for kills in range(1, 8):
        world.say("+h\r\n")
        world.after(4)
        world.end()
        world.after(1)
        assert world.run("sockets.length") == kills + 1


def test_a_wall_clock_that_is_set_changes_no_wait(world: World) -> None:
    """What counts how long it was there may begin at 0."""
    world.run("now = 0")
    world.subscribe("{ since: 0, transport: 'ws' }")
    for kills in range(1, 8):
        world.say("+h\r\n")
        world.say("+h\r\n")
        world.run("Date.now = () => -now")
        world.after(4)
        world.end()
        world.after(1)
        assert world.run("sockets.length") == kills + 1
    assert world.heard().count("live") == 7


def test_a_stream_asks_for_no_shorter_heartbeat_than_gopush_takes(world: World) -> None:
    """A WebSocket asks for three times as much: where none came through, the stream was refused for good."""
    world.subscribe("{ since: 0, heartbeat: 10 }")
    assert world.query()["heartbeat"] == ["30"]
    world.run("sockets[0].fail()")
    world.after(1)
    assert world.get("calls[calls.length - 1]") == "/sub?key=k%261&ver=1&mid=0&heartbeat=30"
    world.say(":\n\n", "streams")
    world.after(35)
    assert not world.run("streams[0].aborted")


def test_a_heartbeat_longer_than_timers_can_be(world: World) -> None:
    world.subscribe("{ since: 0, transport: 'ws', heartbeat: 3000000 }")
    world.say("+h\r\n")
    world.after(86400)
    assert world.heard() == ["connecting", "live"]
    assert world.run("!sockets[0].sent.length")
    world.end()
    world.after(0.2)
    assert world.run("sockets.length") == 1


def test_a_stream_has_a_comment_every_four_minutes_at_least(world: World) -> None:
    """In Node one that was silent for five minutes ended, again and again. What `retry` says may be longer."""
    world.subscribe("{ since: 0, transport: 'sse', heartbeat: 3000000 }")
    assert world.get("calls") == ["/sub?key=k%261&ver=1&mid=0&heartbeat=240"]
    world.say("retry: 9999999999\nid: 0\n\n", "streams")
    for _ in range(3):
        world.after(245)
        world.say(":\n", "streams")
    assert world.heard() == ["connecting", "live"]
    world.after(251)
    assert world.run("streams[0].aborted")
    world.after(86400)
    assert world.run("streams.length") == 1


@pytest.mark.parametrize("transport", ["ws", "sse"])
@pytest.mark.parametrize(("leave", "back"), [("pagehide", "pageshow"), ("freeze", "resume")])
def test_a_page_that_is_left_keeps_no_connection_and_has_one_when_it_is_back(
    world: World, transport: str, leave: str, back: str
) -> None:
    where = {"ws": "sockets", "sse": "streams"}[transport]
    world.subscribe(f"{{ since: 0, transport: '{transport}' }}")
    world.run(f"listeners.{leave}()")
    assert world.run(f"{where}[0].closed || {where}[0].aborted")
    assert world.run(f"{where}.length") == 1
    world.run(f"listeners.{back}()")
    assert world.run(f"{where}.length") == 2


def test_what_a_page_does_wrong_ends_nothing(world: World) -> None:
    world.subscribe("{ since: 0, onMessage: () => { throw new Error('mine'); } }")
    world.say("+h\r\n")
    world.say(message(16))
    assert world.run("mine.mid") == "16"
    with pytest.raises(quickjs.JSException, match="mine"):
        world.after(0)
    assert not world.run("sockets[0].closed")


def test_closing_ends_it(world: World) -> None:
    world.subscribe("{ since: 0 }")
    world.say("+h\r\n")
    world.run("mine.close(); mine.close()")
    world.say(message(16))
    assert world.heard() == ["connecting", "live", "closed"]
    assert world.run("sockets[0].closed")
    assert world.get("timers") == []
    assert world.get("Object.keys(listeners)") == []


def test_who_closes_it_as_it_begins_is_asked_for_no_token(world: World) -> None:
    world.run("let tokens = 0, at = 'connecting'")
    world.subscribe("{ token: () => { tokens++; return 't'; }, onState: state => { if (state === at) mine.close(); } }")
    assert world.get("[tokens, calls.length, timers.length]") == [0, 0, 0]


def test_who_closes_while_it_is_away_leaves_nothing_behind(world: World) -> None:
    world.subscribe("{ since: 0, onState: state => { if (state === 'away') mine.close(); } }")
    world.end()
    assert world.get("timers") == []


def test_a_log_that_takes_long_is_read_as_long_as_it_comes(world: World) -> None:
    world.run("web['/1/msg/get'] = 'slow'")
    world.subscribe("{ transport: 'ws' }")
    world.say('{"ret":0,"data":{"msgs":[', "streams")
    for number in range(1, 4):
        world.after(9)
        world.say(message(16 * number) + ("]}}" if number == 3 else ","), "streams")
    world.end("streams")
    assert world.query()["mid"] == ["48"]
    assert world.heard() == ["connecting"]


def test_a_log_that_stops_is_asked_for_again(world: World) -> None:
    world.run("web['/1/msg/get'] = 'slow'")
    world.subscribe("{ transport: 'ws' }")
    world.say('{"ret":0,"data":{"msgs":[', "streams")
    world.after(11)
    assert world.run("streams[0].aborted")
    assert world.run("streams.length") == 2


# --- server-sent events ---


def test_where_no_websocket_comes_through_a_stream_does(world: World) -> None:
    world.subscribe("{ since: 0 }")
    world.end()
    world.after(1)
    assert world.get("calls[calls.length - 1]") == "/sub?key=k%261&ver=1&mid=0&heartbeat=30"
    world.say("retry: 1500\nid: 0\n\n", "streams")
    world.say(f"id: {MID}\ndata: {message(MID, '{}')}\n\n", "streams")
    assert world.heard()[-3:] == ["connecting", "live", MID + " {} {}"]
    world.end("streams")
    world.after(2)
    assert world.run("sockets.length") == 2


def test_where_a_policy_forbids_websockets_a_stream_comes_through(world: World) -> None:
    """Such a WebSocket fires an error and is never closed; what it fires later, if anything, ends nothing else."""
    world.subscribe("{ since: 0 }")
    world.run("sockets[0].fail()")
    world.after(1)
    assert world.get("[sockets.length, streams.length]") == [1, 1]
    world.run("sockets[0].fail(); sockets[0].end()")
    assert not world.run("streams[0].aborted")


@pytest.mark.parametrize("lookup", ['{"ret":0,"data":{"server":"comet:6968"}}', '{"ret":1001}'])
def test_where_websockets_came_through_one_that_fails_is_tried_again(world: World, lookup: str) -> None:
    """It is the comet that was killed: streams would take all of the browser's connections to web, for good."""
    world.subscribe("{ since: 0 }")
    world.say("+h\r\n")
    world.run(f"web['/1/server/get'] = {lookup!r}")
    for _ in range(4):
        world.run("sockets.forEach(socket => socket.end())")
        world.after(15)
    world.run("const other = subscribe({ key: 'other', since: 0 })")
    world.run("sockets.forEach(socket => socket.end())")
    world.after(30)
    assert world.run("streams.length") == 0
    world.after(300)
    assert world.run("streams.length") > 0


def test_what_came_through_from_one_site_says_nothing_of_another(world: World) -> None:
    world.run("web['http://else/1/server/get'] = web['/1/server/get']")
    world.run("const other = gopush.subscribe('http://else', 'k', { since: 0 })")
    world.say("+h\r\n")
    world.subscribe("{ since: 0 }")
    world.end()
    world.after(1)
    assert world.run("streams.length") == 1


def test_streams_in_the_place_of_websockets_leave_other_keys_the_connections_they_need(world: World) -> None:
    """A browser has six to web. Those that wanted no WebSocket count, and stay."""
    world.run("for (const key of 'abcdef') subscribe({ key, since: 0 })")
    world.run("subscribe({ key: 'own', transport: 'sse' })")
    world.run("sockets.forEach(socket => socket.end())")
    world.after(1)
    keys = [parse_qs(urlsplit(call).query)["key"][0] for call in world.get("calls") if call.startswith("/sub")]
    assert keys == ["own", "a", "b", "c", "d"]
    assert world.run("sockets.length") == 6 + 2
    world.run("streams.forEach(stream => stream.say('retry: 1000\\nid: 0\\n\\n'))")
    world.after(5)
    world.run("sockets.slice(6).forEach(socket => socket.say('+h\\r\\n'))")
    world.run("streams.forEach(stream => stream.say(':\\n'))")
    world.after(0)
    assert world.get("streams.map(stream => !!stream.aborted)") == [False, True, True, True, True]
    world.after(2)
    assert world.get("[sockets.length, streams.length]") == [6 + 2 + 4, 5]


def test_a_stream_that_ends_makes_room_for_another(world: World) -> None:
    world.run("for (const key of 'abcdef') subscribe({ key, since: 0, onMessage: () => {} })")
    world.run("sockets.forEach(socket => socket.end())")
    world.after(1)
    assert world.get("[sockets.length, streams.length]") == [7, 5]
    world.end("streams")
    world.end()
    world.after(2)
    assert world.get("[sockets.length, streams.length]") == [8, 6]


def test_one_comet_that_is_reached_says_nothing_of_another(world: World) -> None:
    world.run("const other = subscribe({ key: 'other', since: 0 })")
    world.say("+h\r\n")
    world.run("web['/1/server/get'] = web['/1/server/get'].replace('comet', 'hidden')")
    world.subscribe("{ since: 0 }")
    world.end()
    world.after(1)
    assert world.run("streams.length") == 1
    world.say("retry: 1000\nid: 0\n\n", "streams")
    world.after(20)
    world.run("sockets[0].say('+h\\r\\n')")
    world.say(":\n", "streams")
    world.after(0)
    assert not world.run("streams[0].aborted")


def test_a_stream_in_the_place_of_a_websocket_lets_one_be_tried_again(world: World) -> None:
    """Not in the middle of a message, without a loss, and at once, whatever `retry` says to who was closed."""
    world.subscribe("{ since: 0 }")
    world.end()
    world.after(1)
    world.say(f"retry: 20000\nid: 0\n\nid: 16\ndata: {message(16)}\n\n", "streams")
    for _ in range(20):
        world.after(30)
        world.say(":\n", "streams")
    assert world.get("[sockets.length, streams.length]") == [1, 1]
    world.say("id: 32\nda", "streams")
    world.after(30)
    world.say(f"ta: {message(32)}\n\n", "streams")
    world.after(0)
    assert world.heard()[-2:] == ["32 1 1", "away the connection ended"]
    assert world.run("streams[0].aborted")
    world.after(1)
    assert world.get("[sockets.length, streams.length]") == [2, 1]
    assert world.query()["mid"] == ["32"]
    world.end()
    world.after(2)
    assert world.get("[sockets.length, streams.length]") == [2, 2]


@pytest.mark.parametrize("prepare", ["transport: 'sse'", "since: 0"])
def test_a_stream_that_is_what_one_wants_goes_on(world: World, prepare: str) -> None:
    world.run("delete globalThis.WebSocket" if prepare == "since: 0" else "")
    world.subscribe(f"{{ {prepare} }}")
    world.say("retry: 1000\nid: 0\n\n", "streams")
    for _ in range(40):
        world.after(30)
        world.say(":\n", "streams")
    assert world.run("streams.length") == 1


def test_a_message_that_takes_longer_than_a_socket_may_be_silent_comes_over_a_stream(world: World) -> None:
    """The answer to the heartbeat stands behind it, and a WebSocket does not show that a message is coming."""
    world.subscribe("{ since: 0 }")
    world.say("+h\r\n")
    world.say(message(16))
    world.after(42)
    assert world.get("[sockets.length, streams.length]") == [2, 0]  # it may have been the network
    world.say("+h\r\n")
    world.after(42)
    assert world.get("[sockets.length, streams.length]") == [2, 1]
    world.say("retry: 1000\nid: 16\n\n", "streams")
    text = f"id: 32\ndata: {message(32, '[' + '1,' * 10 + '1]')}\n\n"
    for at in range(0, len(text), 8):
        world.after(35)
        world.say(text[at : at + 8], "streams")
    assert world.heard()[-1].startswith("32 [1,1,")
    world.end("streams")
    world.after(2)
    assert world.get("[sockets.length, streams.length]") == [3, 1]


def test_a_stream_begins_and_resumes_by_its_ids(world: World) -> None:
    world.run("delete globalThis.WebSocket")
    world.subscribe()
    assert world.get("calls") == ["/sub?key=k%261&ver=1&heartbeat=30"]
    text = f"\r\nretry: 1500\nid: 160\n\n:\nevent: gap\ndata: {{}}\n\nid: 192\r\ndata: {message(192)}\r\n\r\nid: 1"
    for character in text:
        world.say(character, "streams")
    assert world.heard() == ["connecting", "live", "gap", "192 1 1"]
    world.end("streams")
    assert world.heard() == ["away the connection ended"]
    world.after(1.4)
    assert world.run("streams.length") == 1
    world.after(0.2)
    assert world.get("calls[1]") == "/sub?key=k%261&ver=1&mid=192&heartbeat=30"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_stream_is_read_as_the_html_standard_has_it(world: World, end: str, size: int) -> None:
    """However it is cut, also between CR and LF; what is no field, no number, no event of ours counts for nothing."""
    world.subscribe("{ transport: 'sse' }")
    lines = [
        *("retry: 1500", "retry: 15s", "retry:", "retry", "id: 160", ""),
        *("id: 170\0", "id", "id: x", "Data: {}", "data : {}", "", ": data: {}", ""),
        *("event: gap", "", "event: other", "data: {}", ""),
        *('data:{"msg":[1,', 'data: 2],"mid":176,"gid":0}', ""),
        *("event:message", f"data: {message(192)}", "id: 999", "", f"data: {message(208)}"),
    ]
    text = end.join(lines) + end
    for at in range(0, len(text), size):
        world.say(text[at : at + size], "streams")
    assert world.heard() == ["connecting", "live", "176 [1,\n2] [1,2]", "192 1 1"]
    world.end("streams")
    world.after(1.4)
    assert world.run("streams.length") == 1
    world.after(0.2)
    assert world.get("calls[1]") == "/sub?key=k%261&ver=1&mid=192&heartbeat=30"


def test_a_message_in_many_pieces_is_read_once(world: World) -> None:
    """Not all of it again with each piece."""
    world.run("let read = 0, split = String.prototype.split")
    world.run("String.prototype.split = function (by) { read += this.length; return split.call(this, by); }")
    world.subscribe("{ transport: 'sse' }")
    text = f"retry: 1000\nid: 16\n\nid: 32\ndata: {message(32, '[' + '1,' * 5000 + '1]')}\n\n"
    for at in range(0, len(text), 20):
        world.say(text[at : at + 20], "streams")
    assert world.heard()[-1].startswith("32 [1,1,")
    assert world.run("read") < 2 * len(text)


def test_a_stream_cut_before_its_first_message_goes_on_behind_its_first_id(world: World) -> None:
    world.subscribe("{ transport: 'sse' }")
    world.say("retry: 1000\nid: 160\n\n", "streams")
    world.end("streams")
    world.after(2)
    assert world.get("calls[1]") == "/sub?key=k%261&ver=1&mid=160&heartbeat=30"


def test_after_the_end_nothing_comes_though_it_is_there(world: World) -> None:
    world.subscribe("{ transport: 'sse', onMessage: ({ mid }) => { heard.push(mid); mine.close(); } }")
    world.say("retry: 1000\nid: 16\n\n", "streams")
    world.say(f"data: {message(32)}\n\ndata: {message(48)}\n\nevent: gap\ndata: {{}}\n\nid: 64\n\n", "streams")
    assert world.heard() == ["connecting", "live", "32", "closed"]
    assert world.run("mine.mid") == "32"
    assert world.run("streams[0].aborted")
    assert world.get("timers") == []


def test_what_answers_in_its_place_is_no_stream(world: World) -> None:
    """As the page of a hotel's network does, with 200."""
    world.run("web.type = 'text/html'")
    world.subscribe("{ transport: 'sse' }")
    world.say("<html>", "streams")
    world.after(0)
    assert world.heard() == ["connecting", "away no stream"]
    assert world.run("streams[0].aborted")


def test_a_refusal_without_a_reason_ends_nothing(world: World) -> None:
    world.subscribe("{ transport: 'sse' }")
    world.say("event: refused\ndata: {}\n\n", "streams")
    assert world.heard() == ["connecting", "away undefined"]
    world.after(2)
    assert world.run("streams.length") == 2


def test_a_silent_stream_is_left(world: World) -> None:
    world.subscribe("{ transport: 'sse' }")
    world.say("retry: 1000\nid: 160\n\n", "streams")
    world.after(39)
    world.say(":\n", "streams")
    world.after(39)
    assert world.run("streams.length") == 1
    world.after(5)
    assert world.run("streams[0].aborted")
    assert world.run("streams.length") == 2


def test_a_stream_that_does_not_begin_is_left_as_soon_as_a_look_up_is(world: World) -> None:
    """Also where its heartbeat is long."""
    world.subscribe("{ transport: 'sse', heartbeat: 240 }")
    world.after(9)
    assert not world.run("streams[0].aborted")
    world.after(2)
    assert world.run("streams[0].aborted")
    assert world.run("streams.length") == 2


def test_a_stream_begins_anew_where_the_network_is_back(world: World) -> None:
    """It may be dead, and cannot be asked; also one that has not begun yet."""
    world.subscribe("{ transport: 'sse' }")
    world.say("retry: 1000\nid: 160\n\n", "streams")
    world.run("listeners.visibilitychange()")
    assert not world.run("streams[0].aborted")
    world.run("listeners.online()")
    assert world.run("streams[0].aborted")
    world.after(1)
    assert world.get("calls[1]") == "/sub?key=k%261&ver=1&mid=160&heartbeat=30"
    world.run("listeners.online()")
    world.after(2)
    assert world.run("streams[1].aborted")
    assert world.run("streams.length") == 3


def test_a_refused_stream_comes_back_after_its_retry(world: World) -> None:
    world.subscribe("{ transport: 'sse', since: 0 }")
    world.say('retry: 20000\nid: 0\n\nevent: refused\ndata: {"reason":"limit"}\n\n', "streams")
    assert world.heard() == ["connecting", "away limit"]
    world.after(19)
    assert world.run("streams.length") == 1
    world.after(2)
    assert world.run("streams.length") == 2


@pytest.mark.parametrize(
    ("status", "said", "why"),
    [(400, "Bad Request", "-p"), (401, "Unauthorized: this stream wants a token", "-a"), (403, "Forbidden", "-c")],
)
def test_a_stream_refused_for_good_is_not_repeated(world: World, status: int, said: str, why: str) -> None:
    world.run(f"web.status = {status}; web.said = '{said}\\n'")
    world.subscribe("{ transport: 'sse' }")
    world.after(100)
    assert world.heard() == ["connecting", f"closed {why}"]


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize(
    ("kind", "said"),
    [("html", "Forbidden"), ("plain", "error code: 1020"), ("plain", "Forbidden by policy"), ("plain", "\\n")],
)
def test_what_a_proxy_refuses_in_its_place_is_tried_again(world: World, status: int, kind: str, said: str) -> None:
    """gopush refuses in plain text, by the words of the status; a proxy by a page, or in words of its own."""
    world.run(f"web.status = {status}; web.refusal = 'text/{kind}'; web.said = '{said}'")
    world.subscribe("{ transport: 'sse', token: () => { heard.push('token'); return 't'; } }")
    assert world.heard() == ["connecting", "token", f"away HTTP {status}"]
    world.run("web.status = 200")
    world.after(1)
    world.say("retry: 1000\nid: 16\n\n", "streams")
    assert world.heard() == ["connecting", "live"]


@pytest.mark.parametrize(
    ("status", "said"), [(429, "Forbidden"), (502, "Bad Request"), (502, "Forbidden"), (503, "Unauthorized")]
)
def test_gopushs_words_with_another_status_refuse_nothing(world: World, status: int, said: str) -> None:
    """A proxy that cannot reach a web node may say so in any words."""
    world.run(f"web.status = {status}; web.said = '{said}\\n'")
    world.subscribe("{ transport: 'sse' }")
    assert world.heard() == ["connecting", f"away HTTP {status}"]
    world.after(2)
    assert world.run("streams.length") > 1
    world.run("mine.close()")


def test_a_web_without_streams_is_asked_again(world: World) -> None:
    world.run("web.status = 404")
    world.subscribe("{ transport: 'sse' }")
    assert world.heard() == ["connecting", "away HTTP 404"]
    world.after(2)
    assert world.run("streams.length") > 1
    world.run("mine.close()")
