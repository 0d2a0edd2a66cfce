"""What measures must measure right: the load generator against its own raw server, and the table."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree
from importlib import import_module
from pathlib import Path

import pytest

from bench.__main__ import complaints, line
from bench.load import Load, compiled, raw_limit
from bench.measurements import CLUSTER, MEASUREMENTS, Measurement
from bench.plot import Series, chart


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler here")
    return compiled(tmp_path_factory.mktemp("bench"))


def test_every_subscriber_is_counted_for_every_message(program: Path) -> None:
    with raw_limit(program, 0) as (tcp, admin, _):
        options = {"tcp": tcp, "admin": admin, "subscribers": 50, "publishers": 1, "window": 8, "messages": 20}
        load = Load(program, None, options)
        assert load.ready() == 50
        load.go()
        figures = load.figures()
    assert figures["due"] == figures["delivered"] == 1000
    assert figures["lost"] == figures["failed"] == figures["disordered"] == figures["closed"] == 0
    assert 0 < figures["delivery_p50"] <= figures["delivery_p99"] <= figures["delivery_max"]


def test_what_does_not_come_is_lost(program: Path) -> None:
    """The raw server knows no keys: who waits for a message that nobody pushes waits in vain."""
    with raw_limit(program, 0) as (tcp, admin, _):
        load = Load(program, None, {"tcp": tcp, "admin": admin, "subscribers": 5, "expect": 1, "lag": 1})
        load.ready()
        load.go()
        assert load.figures()["lost"] == 5


def test_the_table_shows_median_range_and_ratio() -> None:
    measurement = Measurement("fan-out", CLUSTER, "deliveries_per_second", {}, raw=True)
    runs = [{"deliveries_per_second": rate, "delivery_p50": 1.0, "lost": 0.0} for rate in (300.0, 100.0, 200.0)]
    raws = [{"deliveries_per_second": 400.0}]
    assert line(measurement, runs, raws).split()[:6] == ["fan-out", "200", "100", "300", "400", "0.50"]
    assert complaints(runs) == []
    assert complaints([*runs, {"lost": 2.0}]) == ["lost: 2"]


def test_measurements_have_names_of_their_own() -> None:
    assert len({measurement.name for measurement in MEASUREMENTS}) == len(MEASUREMENTS)


def test_a_plot_is_svg_with_a_line_for_each_series() -> None:
    drawn = ElementTree.fromstring(
        chart("keys", "us < 1", [Series("a", [(1, 2.0), (100, 3.0)]), Series("b", [(1, 9)])])
    )
    lines = [element for element in drawn.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 2
    assert len(lines[0].attrib["points"].split()) == 2


@pytest.mark.parametrize("name", ["__main__", "growth", "many", "stores", "waiting"])
def test_each_measurement_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        import_module(f"bench.{name}").main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: python -m bench")
