from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gopush.comet.settings import CometSettings
from gopush.config.schema import Section, load, options, render
from gopush.config.values import count, duration, listeners, password
from gopush.embedded.settings import EmbeddedSettings
from gopush.errors import SettingsError
from gopush.message.settings import MessageSettings
from gopush.web.settings import WebSettings

ETC = Path(__file__).resolve().parents[2] / "etc"
SHIPPED: dict[str, type[Any]] = {
    "comet": CometSettings,
    "message": MessageSettings,
    "web": WebSettings,
    "gopush": EmbeddedSettings,
}
shipped = pytest.mark.parametrize(("name", "settings"), SHIPPED.items(), ids=SHIPPED)


@dataclass(frozen=True)
class Inner:
    secret: str = Section("rpc")("secret", "", password, "what only we know")
    ping: float = Section("rpc")("ping", "1s", duration, "how often")


@dataclass(frozen=True)
class Outer:
    weight: int = Section("base")("weight", "1", count(1), "the share")
    bind: tuple[str, ...] = Section("base")("tcp.bind", "localhost:1", listeners, "where")
    inner: Inner = field(default_factory=Inner)


@pytest.fixture
def ini(tmp_path: Path) -> Any:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "some.ini"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_without_a_file_the_defaults_hold() -> None:
    assert load(Outer, None) == Outer() == Outer(1, listeners("localhost:1"), Inner("", 1.0))


def test_reads_what_the_file_says_and_leaves_the_rest(ini: Any) -> None:
    content = (
        "# a word\n; another\n[base]\nweight = 3\ntcp.bind =\n  tcp:1\n  # one more\n  tcp:2\n\n[rpc]\nsecret = a%b#c\n"
    )
    assert load(Outer, ini(content)) == Outer(3, ("tcp:1", "tcp:2"), Inner("a%b#c", 1.0))


def test_a_byte_order_mark_and_windows_lines_do_no_harm(ini: Any) -> None:
    assert load(Outer, ini(b"\xef\xbb\xbf[base]\r\nweight = 2\r\n")).weight == 2


@pytest.mark.parametrize("behind", ["", "  ", " # the share", "\t; [of] this node", "#"])
def test_a_comment_may_stand_behind_a_section(ini: Any, behind: str) -> None:
    assert load(Outer, ini(f"[base]{behind}\nweight = 2\n")).weight == 2


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(Outer, None).weight = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[bass]\n", "[bass]: is no section here (there are [base], [rpc])"),
        ("[base]\nwait = 1\n", "[base] wait: is no option here (there are tcp.bind, weight)"),
        ("[base]\nWeight = 1\n", "[base] Weight: is no option here (there are tcp.bind, weight)"),
        ("[base]\nping = 1s\n", "[base] ping: is no option here (there are tcp.bind, weight)"),
        ("[base]\nweight = 0\n", "[base] weight: '0' is not a whole number from 1 to 2147483647"),
        ("[base]\nweight =\n", "[base] weight: '' is not a whole number from 1 to 2147483647"),
        (
            "[rpc]\nping = 3 parsecs\n",
            "[rpc] ping: '3 parsecs' is not a duration (try 30s; the units are ms, s, m, h, d)",
        ),
        (b"[base]\nweight = \xff\n", "is not UTF-8 at byte 16"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(ini: Any, content: str | bytes, complaint: str) -> None:
    """File, section, option, what was found, what would be right."""
    path = ini(content)
    with pytest.raises(SettingsError) as wrong:
        load(Outer, path)
    assert str(wrong.value) == f"{path}: {complaint}"


@pytest.mark.parametrize("content", ["weight = 1\n", "[base]\nweight\n", "[base]\nweight = 1\nweight = 2\n", "[base"])
def test_what_is_no_ini_file_is_said_in_one_line(ini: Any, content: str) -> None:
    path = ini(content)
    with pytest.raises(SettingsError) as wrong:
        load(Outer, path)
    assert str(wrong.value).startswith(f"{path}: ")
    assert "\n" not in str(wrong.value)


def test_a_file_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"/some\.ini: cannot be read: No such file or directory$"):
        load(Outer, tmp_path / "some.ini")


@pytest.mark.parametrize("value", ["", "text", '"text'])
def test_what_is_indented_below_an_option_is_not_taken_for_its_value(ini: Any, value: str) -> None:
    """It may be an option that somebody indented, or a password; lists alone go on over several lines."""
    lists = {opt for opt in options(EmbeddedSettings) if isinstance(opt.parse(opt.default), tuple)}
    for opt in options(EmbeddedSettings):
        if opt not in lists:
            with pytest.raises(SettingsError, match=rf"\[{opt.section}\] {opt.name}: \(hidden\)") as wrong:
                load(EmbeddedSettings, ini(f"[{opt.section}]\n{opt.name} = {value or opt.default}\n  {SECRET} = 1\n"))
            assert SECRET not in str(wrong.value)
            with pytest.raises(SettingsError, match=rf"\[{opt.section}\] {opt.name}: \(hidden\)"):
                load(EmbeddedSettings, ini(f"[{opt.section}]\n{opt.name} =\n  {SECRET}\n"))
    with pytest.raises(SettingsError, match=r"prefix: \(hidden\) goes on over several lines; an option begins at its"):
        load(EmbeddedSettings, ini("[redis]\nprefix = gopush:\n  wait = 1\n"))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("[base]\nproto =", "websocket,\n  tcp"),
        ("[base]\nhttp.bind =", "tcp:1\n  tcp:2"),
        ("[base]\ntcp.advertise =", "a:1,\n  b:2"),
        ("[admin]\nhosts =", "a\n  b"),
        ("[connections]\norigins =", "https://a\n  https://b"),
        ("[connections]\nproxies =", "unix\n  ::1"),
        ("[redis]\nsource =", "node1:1 tcp@a:1,\n  node2:1 tcp@b:1"),
    ],
)
def test_a_list_goes_on_over_several_lines(ini: Any, line: str, value: str) -> None:
    one_line = load(EmbeddedSettings, ini(f"{line} {value.replace(chr(10), '')}\n"))
    assert load(EmbeddedSettings, ini(f"{line}\n  {value}\n")) == one_line != EmbeddedSettings()


def test_a_secret_is_never_shown(ini: Any) -> None:
    @dataclass(frozen=True)
    class Guarded:
        secret: int = Section("rpc")("secret", "1", count(), "a number for once")

    with pytest.raises(SettingsError, match=r"\[rpc\] secret: \(hidden\) is not a whole number") as wrong:
        load(Guarded, ini("[rpc]\nsecret = hush\n"))
    assert "hush" not in str(wrong.value)


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (f"{SECRET}\n[rpc]\n", "line 1: stands before the first [section]"),
        (f"[rpc]\nsecret = long\n\n{SECRET}\n", "line 4: is neither"),
        (f"[rpc]\nsecret {SECRET}\n", "line 2: is neither"),
        (f"[rpc]\nsecret = long\n{SECRET}=\n", "line 3: is no option here (there are ping, secret)"),
        (f"[rpc]\nsecret = long\n{SECRET}= \n{SECRET} = \n", "line 4: the option was there before"),
        ("[rpc]\nsecret = long\nhunter=\n", "line 3: is no option here"),
        ("[rpc]\nsecret = long\n[hunter]\n", "line 3: is no section here"),
        (f"[{SECRET}]\n", "line 1: is no section here"),
        (f"[base]\nweight = 1\n[base]\n{SECRET}\n", "line 3: the [section] was there before"),
        (f"[rpc] secret = {SECRET}\n", "line 1: holds more than [section]: an option has a line of its own"),
        (f"[base]\nweight = 1\n\n[rpc] {SECRET}]\nping = 1s\n", "line 4: holds more than [section]"),
        (f"[base]\n  [rpc]{SECRET}\n", "line 2: holds more than [section]"),
        ("[base]\n[]\nweight = 1\n", "line 2: names no section"),
        (f"[] {SECRET}\n", "line 1: names no section"),
        (f"[base]\nsecret = {SECRET}\n", "[base] secret: is no option here"),
        (f"[base]\nnode1:1 tcp@localhost:6379#{SECRET}=\n", "line 2: is no option here"),
        (f"[redis.source]\nnode1:1 tcp@localhost:6379#{SECRET}\n", "line 2: is neither"),
        (f"[base]\nweight = tcp@localhost:6379#{SECRET}\n", "[base] weight: (hidden) is not a whole number"),
        (f"[base]\ntcp.bind = redis://:{SECRET}@localhost:6379\n", "[base] tcp.bind: (hidden) holds (hidden), which"),
        (f'[rpc]\nsecret = "{SECRET}\n', "[rpc] secret: (hidden) begins with a double quote"),
    ],
)
def test_a_line_that_cannot_be_read_is_reported_by_its_number(ini: Any, content: str, complaint: str) -> None:
    """What is malformed may be the rest of a secret, and the journal is read by many."""
    path = ini(content)
    with pytest.raises(SettingsError) as wrong:
        load(Outer, path)
    assert str(wrong.value).startswith(f"{path}: {complaint}")
    assert "hunter" not in str(wrong.value)


@pytest.mark.parametrize(
    "value",
    [
        f"node1:1 tcp@localhost:6379#pass,{SECRET}",
        f"node1:1 redis://:{SECRET}@localhost:6379",
        f"node1:1 tcp@user:{SECRET}@localhost:6379",
        f"node1:1 tcp@localhost#{SECRET}",
        f"node1:1 tcp@localhost:6379#pass\n  {SECRET}",
        f'node1:1 tcp@localhost:6379#"{SECRET}',
        f"node1:1 sentinel@{SECRET}/mymaster",
    ],
)
def test_no_word_of_a_store_with_a_password_is_shown(ini: Any, value: str) -> None:
    with pytest.raises(SettingsError, match=r"\[redis\] source: \(hidden\)") as wrong:
        load(MessageSettings, ini(f"[redis]\nsource = {value}\n"))
    assert SECRET not in str(wrong.value)


@pytest.mark.parametrize(
    "line",
    [
        "[rpc]\nsecret.legacy = {}",
        "[rpc]\nsecret.legacy = 1{}",
        "[token]\nsigned.alg = {}",
        "[token]\nlife = {}",
        "[push]\nkey.rate = {}",
        "[base]\npassword = {}",
        "[rpc]\nsecrett = {}",
        "[base]\nmaxsubscriber = secret: {}",
        "[base]\ntcp.bind = tcp:1:password={} tcp:1",
        "[base]\ntcp.bind = password={}",
        "[base]\ntcp.bind = tcp:1:passwd=some {}",
    ],
)
def test_what_was_written_where_a_secret_may_be_meant_is_not_shown(ini: Any, line: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        load(EmbeddedSettings, ini(line.format(SECRET) + "\n"))
    assert line[1:].split("]")[0] in str(wrong.value)
    assert SECRET not in str(wrong.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [("[push] key.rate", "10/s"), ("[http] mprivate.keys", "-1"), ("[token] life", "90 days"), ("[token] life", "30")],
)
def test_a_mistyped_number_is_shown_also_beside_secrets(ini: Any, place: str, value: str) -> None:
    section, name = place.split()
    with pytest.raises(SettingsError, match=rf"{name}: '{value}' is not a "):
        load(EmbeddedSettings, ini(f"{section}\n{name} = {value}\n"))


@pytest.mark.parametrize(
    "endpoint",
    [
        "ssl:8443:privateKey=/key.pem:password=",
        "tcp:1:password=",
        "haproxy:tcp:1:interface=::1:password=",
        "unix:/run/gopush.sock:mode=660:token=",
        "systemd:domain=INET:secret=",
    ],
)
def test_what_an_unknown_word_of_an_endpoint_holds_goes_nowhere(ini: Any, endpoint: str) -> None:
    """Whoever listens there refuses it, and says which endpoint that is."""
    (found,) = load(EmbeddedSettings, ini(f"[base]\nstat.bind = {endpoint}{SECRET}:{SECRET}\n")).subscribers.stat_bind
    assert found == endpoint + "(hidden)"


@pytest.mark.parametrize(
    "line",
    [
        "[connections]\norigins = https://www.example.org/",
        "[admin]\npublic = wss://push.example.org:8090",
        "[base]\nwebsocket.advertise = wss://push.example.org:6968",
        "[base]\nhttp.bind = http://localhost:8090",
        "[zookeeper]\ncomet.path = /gopush//comets",
        "[push]\nkey.rate = ",
        "[http]\nmprivate.keys = ",
        "[token]\nlife = nan",
    ],
)
def test_what_holds_no_secret_is_shown(ini: Any, line: str) -> None:
    found = line.partition("= ")[2]
    with pytest.raises(SettingsError) as wrong:
        load(EmbeddedSettings, ini(f"{line}\n"))
    assert f": {found!r} " in str(wrong.value)
    assert "(hidden)" not in str(wrong.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[channel]\nsweep = 0s", "'0s' is not a duration above 0, up to 36500d"),
        ("[http]\nidle = 99999999999d", "'99999999999d' is not a duration above 0, up to 36500d"),
        (f"[tcp]\nsndbuf.size = {'9' * 20}", f"'{'9' * 20}' is not a size below 1024GiB"),
        ("[hbase]\nthrift = a", "'a' holds 'a', which is not host:port (try thrift1.example.org:9090)"),
        ("[zookeeper]\naddr = a", "'a' holds 'a', which is not host:port (try zookeeper1.example.org:2181)"),
        (
            "[zookeeper]\naddr = a:1,b:2181/chroot",
            "'a:1,b:2181/chroot' has a path behind a server: comet.path and message.path say where processes register",
        ),
    ],
)
def test_an_error_says_what_would_be_right_for_its_option(ini: Any, line: str, said: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        load(EmbeddedSettings, ini(f"{line}\n"))
    assert str(wrong.value).partition(": [")[2].partition(": ")[2] == said


@pytest.mark.parametrize("separator", [",", " ", "\t", ", "])
@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("connections", "origins"),
        ("connections", "proxies"),
        ("admin", "hosts"),
        ("base", "tcp.advertise"),
        ("base", "tcp.bind"),
        ("zookeeper", "addr"),
    ],
)
def test_no_part_of_a_password_is_shown(ini: Any, place: str, name: str, separator: str) -> None:
    """It may hold what separates the parts of a list."""
    for value in (
        f"https://user:{SECRET}{separator}{SECRET}@www.example.org",
        f"https://www.example.org/?a=b{separator}token={SECRET}",
        f"node1:1 tcp@localhost:6379#{SECRET}{separator}{SECRET}",
    ):
        with pytest.raises(SettingsError, match=rf"\[{place}\] {name}: \(hidden\) holds \(hidden\)") as wrong:
            load(EmbeddedSettings, ini(f"[{place}]\n{name} = {value}\n"))
        assert SECRET not in str(wrong.value)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('a"b, #c', 'a"b, #c'),
        ('"  pass,word "', "  pass,word "),
        (r'"\"\\"', '"\\'),
        ('""', ""),
        ("p\u00e4ss", "p\u00e4ss"),
    ],
)
def test_a_secret_may_hold_any_character(ini: Any, written: str, expected: str) -> None:
    @dataclass(frozen=True)
    class Guarded:
        secret: str = Section("rpc")("secret", "", password, "what only we know")

    assert load(Guarded, ini(f"[rpc]\nsecret = {written}\n")).secret == expected


@shipped
def test_an_option_is_declared_once(name: str, settings: type[Any]) -> None:
    declared = [(opt.section, opt.name) for opt in options(settings)]
    assert len(set(declared)) == len(declared)


@shipped
def test_the_shipped_file_shows_every_option_with_its_default(name: str, settings: type[Any]) -> None:
    """protocol.md, section 9: etc/<role>.ini is what `gopush ini <role>` prints."""
    content = (ETC / f"{name}.ini").read_text("utf-8")
    assert content == render(settings), "write the file anew: make ini"
    for opt in options(settings):
        section = content.split(f"\n[{opt.section}]\n")[1].split("\n[")[0]
        live = " (SIGHUP)" if opt.live else ""
        assert section.count(f"\n# {opt.help}{live}\n{opt.name} ={' ' if opt.default else ''}{opt.default}\n") == 1


@shipped
def test_the_operators_page_names_what_is_live(name: str, settings: type[Any]) -> None:
    page = (ETC.parent / "docs" / "operations.md").read_text("utf-8")
    table = page.split("## Changing settings")[1].split("The rest needs a restart")[0]
    for opt in options(settings):
        of_section = "".join(part for part in re.split(r"[|;]", table) if f"`[{opt.section}]" in part)
        named = f"`{opt.name}`" in of_section or f"] {opt.name}`" in of_section or f"[{opt.section}] …" in of_section
        assert named == opt.live, opt.name


@shipped
def test_the_shipped_file_changes_nothing(name: str, settings: type[Any]) -> None:
    assert load(settings, ETC / f"{name}.ini") == load(settings, None) == settings()


@pytest.mark.parametrize(
    ("name", "section", "option_name", "default"),
    [
        *((name, "base", "user", "nobody") for name in ("comet", "message", "web")),
        ("comet", "base", "tcp.bind", "localhost:6969"),
        ("comet", "base", "websocket.bind", "localhost:6968"),
        ("comet", "base", "rpc.bind", "localhost:6970"),
        ("comet", "base", "stat.bind", "localhost:6972"),
        ("comet", "base", "proto", "tcp,websocket"),
        ("comet", "base", "node", "node1"),
        ("comet", "base", "weight", "1"),
        ("comet", "tcp", "sndbuf.size", "2048"),
        ("comet", "tcp", "rcvbuf.size", "256"),
        ("comet", "tcp", "tcp.keepalive", "no"),
        ("comet", "channel", "maxsubscriber", "64"),
        ("comet", "channel", "auth", "no"),
        ("comet", "channel", "msgbuf.num", "4096"),
        ("comet", "channel", "msgbuf.size", "2MiB"),
        ("comet", "zookeeper", "addr", "localhost:2181"),
        ("comet", "zookeeper", "timeout", "30s"),
        ("comet", "zookeeper", "comet.path", "/gopush-cluster-comet"),
        ("comet", "zookeeper", "message.path", "/gopush-cluster-message"),
        ("comet", "rpc", "ping", "1s"),
        ("comet", "rpc", "retry", "1s"),
        ("message", "base", "rpc.bind", "localhost:8070"),
        ("message", "node", "weight", "1"),
        ("message", "storage", "type", "redis"),
        ("message", "storage", "store", "20"),
        ("message", "redis", "source", "node1:1 tcp@localhost:6379"),
        ("message", "zookeeper", "addr", "localhost:2181"),
        ("message", "zookeeper", "timeout", "30s"),
        ("message", "zookeeper", "message.path", "/gopush-cluster-message"),
        ("web", "base", "http.bind", "localhost:8090"),
        ("web", "base", "admin.bind", "localhost:8091"),
        ("web", "http", "idle", "10s"),
        ("web", "token", "life", "30d"),
        ("web", "zookeeper", "addr", "localhost:2181"),
        ("web", "zookeeper", "timeout", "30s"),
        ("web", "zookeeper", "comet.path", "/gopush-cluster-comet"),
        ("web", "zookeeper", "message.path", "/gopush-cluster-message"),
        ("web", "rpc", "ping", "1s"),
        ("web", "rpc", "retry", "1s"),
    ],
)
def test_the_defaults_are_those_of_the_original(name: str, section: str, option_name: str, default: str) -> None:
    """protocol.md, section 9; section 7: the paths."""
    declared = {(opt.section, opt.name): opt.default for opt in options(SHIPPED[name])}
    assert declared[section, option_name] == default


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("comet", "[base]\npidfile = /tmp/comet.pid"),
        ("message", "[storage]\ntype = mysql"),
        ("message", "[mysql]\nclean = 1h"),
        ("message", "[redis]\nidle = 500"),
        ("message", "[redis]\nactive = 1000"),
    ],
)
def test_what_has_no_meaning_any_more_is_no_option(ini: Any, name: str, lines: str) -> None:
    """protocol.md, section 9: it is refused in words, as any other mistake is, not passed over."""
    with pytest.raises(SettingsError, match=r"is (no option|no section|none of)"):
        load(SHIPPED[name], ini(f"{lines}\n"))


@pytest.mark.parametrize("name", ["comet", "gopush"])
@pytest.mark.parametrize("option_name", ["sndbuf.size", "rcvbuf.size"])
def test_a_buffer_is_one_that_the_kernel_takes(ini: Any, name: str, option_name: str) -> None:
    load(SHIPPED[name], ini(f"[tcp]\n{option_name} = 2147483647\n"))
    with pytest.raises(SettingsError, match=rf"\[tcp\] {option_name}: '2GiB' is more than the kernel takes"):
        load(SHIPPED[name], ini(f"[tcp]\n{option_name} = 2GiB\n"))


@pytest.mark.parametrize(
    "line",
    [
        *(
            f"{name} = {path}"
            for name in ("comet.path", "message.path")
            for path in ("", "/", "gopush", "/a//b", "/a/b/", "/a/./b", "/a/../b", "/a/b\x7f")
        ),
        *(f"timeout = {value}" for value in ("1ms", "999ms", "25d", "36500d")),
    ],
)
@pytest.mark.parametrize("name", SHIPPED)
def test_what_zookeeper_cannot_take_is_refused(ini: Any, name: str, line: str) -> None:
    with pytest.raises(SettingsError, match=r"\[zookeeper\] .* is (no path in ZooKeeper|not a duration from 1s to 1d)"):
        load(SHIPPED[name], ini(f"[zookeeper]\n{line}\n"))


@pytest.mark.parametrize("comets", ["/g", "/g/comets"])
@pytest.mark.parametrize("name", SHIPPED)
def test_comets_do_not_register_where_message_nodes_are_looked_for(ini: Any, name: str, comets: str) -> None:
    with pytest.raises(SettingsError, match=rf"\[zookeeper\] comet\.path: {comets} is message\.path, or lies below it"):
        load(SHIPPED[name], ini(f"[zookeeper]\ncomet.path = {comets}\nmessage.path = /g\n"))
    load(SHIPPED[name], ini("[zookeeper]\ncomet.path = /g\nmessage.path = /g/messages\n"))
    load(SHIPPED[name], ini("[zookeeper]\ncomet.path = /gopush\nmessage.path = /g\n"))


@pytest.mark.parametrize("name", ["comet", "gopush"])
def test_no_comet_has_the_name_of_the_znode_of_message_nodes(ini: Any, name: str) -> None:
    """It would register among them, and nobody would take it for a comet."""
    paths = "[zookeeper]\ncomet.path = /g\nmessage.path = /g/messages\n"
    with pytest.raises(SettingsError, match=r"\[base\] node: messages would register at /g/messages, which is "):
        load(SHIPPED[name], ini(f"{paths}[base]\nnode = messages\n"))
    load(SHIPPED[name], ini(f"{paths}[base]\nnode = node1\n"))


@pytest.mark.parametrize("address", ["0.0.0.0:7000", "[::]:7000", "[0:0::0]:7000", "[::ffff:0.0.0.0]:7000", "0:7000"])
@pytest.mark.parametrize("name", ["comet", "message", "gopush"])
def test_others_are_not_sent_to_all_addresses_of_a_machine(ini: Any, name: str, address: str) -> None:
    for option in ("rpc", "tcp", "websocket") if name != "message" else ("rpc",):
        path = ini(f"[base]\n{option}.advertise = 10.0.0.1:7000 {address}\n")
        with pytest.raises(SettingsError) as caught:
            load(SHIPPED[name], path)
        start = f"{path}: [base] {option}.advertise: '10.0.0.1:7000 {address}' holds '{address}', which others cannot "
        assert str(caught.value).startswith(start)
        assert str(caught.value).endswith("(try push1.example.org:6969)")
        load(SHIPPED[name], ini(f"[base]\n{option}.advertise = 10.0.0.1:7000 [::1]:7000 [::ffff:10.0.0.1]:7000\n"))


@pytest.mark.parametrize("line", ["comet.path = /a/b c", "message.path = /ä/...", "timeout = 1s", "timeout = 1d"])
def test_what_zookeeper_can_take_is_not(ini: Any, line: str) -> None:
    load(CometSettings, ini(f"[zookeeper]\n{line}\n"))


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ("timeout = 2s", "[rpc] timeout: 2 s is not below [rpc] attempt, 2 s: "),
        ("timeout = 3s\nattempt = 2500ms", "[rpc] timeout: 3 s is not below [rpc] attempt, 2.5 s: "),
        ("attempt = 4s", "[rpc] attempt: 4 s is not below [rpc] deadline, 4 s: "),
        ("deadline = 2s", "[rpc] attempt: 2 s is not below [rpc] deadline, 2 s: "),
    ],
)
@pytest.mark.parametrize("name", SHIPPED)
def test_the_times_of_calls_nest(ini: Any, name: str, lines: str, wrong: str) -> None:
    """A frozen comet, or message node, would take all the time that there is: nobody else would be asked."""
    path = ini(f"[rpc]\n{lines}\n")
    with pytest.raises(SettingsError) as caught:
        load(SHIPPED[name], path)
    assert str(caught.value) == f"{path}: {wrong}no time would be left to ask another one"
    load(SHIPPED[name], ini("[rpc]\ntimeout = 1s\nattempt = 1001ms\ndeadline = 1002ms\n"))


@pytest.mark.parametrize("name", ["web", "gopush"])
@pytest.mark.parametrize("endpoint", ["127.0.0.1:8090", "unix:/run/gopush", "haproxy:tcp:8090"])
def test_one_port_is_not_both(ini: Any, name: str, endpoint: str) -> None:
    with pytest.raises(SettingsError, match=r"\[base\] http\.bind and admin\.bind: .* take the same port: use another"):
        load(SHIPPED[name], ini(f"[base]\nhttp.bind = {endpoint}\nadmin.bind =\n  unix:/run/another\n  {endpoint}\n"))
    load(SHIPPED[name], ini("[base]\nhttp.bind = localhost:0\nadmin.bind = localhost:0\n"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("localhost:7000", "tcp:7000:interface=127.0.0.1"),
        ("localhost:7000", "tcp:port=7000:interface=localhost:backlog=5"),
        ("localhost:7000", "ssl:7000:interface=127.0.0.1:privateKey=key.pem"),
        ("localhost:7000", "haproxy:tcp:7000:interface=127.0.0.1"),
        ("0.0.0.0:7000", "localhost:7000"),
        ("tcp:7000", "node.example.org:7000"),
        ("[::]:7000", "[::1]:7000"),
        ("tcp6:7000", "[0:0::1]:7000"),
        ("unix:/run/socket", "unix:/run/socket"),
    ],
)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("comet", ("tcp.bind", "rpc.bind")),
        ("message", ("rpc.bind", "stat.bind")),
        ("web", ("http.bind", "stat.bind")),
        ("gopush", ("websocket.bind", "admin.bind")),
        ("gopush", ("http.bind",)),
    ],
)
def test_no_two_endpoints_take_one_port(ini: Any, name: str, options: tuple[str, ...], one: str, other: str) -> None:
    """The second could not be bound: under systemd the unit would try for ever."""
    for first, second in ((one, other), (other, one)):
        if len(options) == 1:
            path = ini(f"[base]\n{options[0]} = {first} {second}\n")
        else:
            path = ini(f"[base]\n{options[0]} = {first}\n{options[1]} = {second}\n")
        with pytest.raises(SettingsError, match=r": \[base\] .*\.bind: .+:.+ and .+:.+ take the same port") as wrong:
            load(SHIPPED[name], path)
        assert all(option_name in str(wrong.value) for option_name in options)


@pytest.mark.parametrize(
    "lines",
    [
        "http.bind = localhost:0 localhost:0\nadmin.bind = 0.0.0.0:0",
        "http.bind = 0.0.0.0:7000 [::]:7000",  # the system decides
        "http.bind = localhost:7000 [::1]:7000 10.0.0.1:7000 node.example.org:7000",
        "http.bind = systemd:domain=INET:index=0\nadmin.bind = systemd:domain=INET:index=1",
        "http.bind = unix:/run/one\nadmin.bind = unix:/run/two",
        "http.bind = le:/certificates:tcp:443\nadmin.bind = tcp:443",
        "http.bind = tcp:port\nadmin.bind = tcp:port:interface=127.0.0.1",  # refused as what it is: no endpoint
        "rpc.bind = localhost:8090",  # nobody listens there without a cluster
        "proto = websocket\ntcp.bind = localhost:8090",
    ],
)
def test_what_may_share_a_port_or_is_not_bound_is_let_be(ini: Any, lines: str) -> None:
    load(EmbeddedSettings, ini(f"[base]\n{lines}\n"))


@pytest.mark.parametrize("settings", [CometSettings, MessageSettings])
def test_a_process_of_a_cluster_can_be_called(settings: type[Any], ini: Any) -> None:
    with pytest.raises(SettingsError, match=r"\[base\] rpc\.bind: '' is nowhere that other nodes could call"):
        load(settings, ini("[base]\nrpc.bind =\n"))
