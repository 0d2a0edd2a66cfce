"""`GET /health` on the ports of a web node (protocol.md, section 10)."""

from __future__ import annotations

import json

from tests.web.conftest import World


def test_both_ports_tell_that_a_comet_answers(world: World) -> None:
    for answer in (world.get("/health"), world.call_admin("GET", "/health")):
        assert answer.status == 200
        assert json.loads(answer.body) == {"alive": True, "ready": True}


def test_without_a_comet_it_is_not_ready(world: World) -> None:
    world.comets.none_known = True
    answer = world.get("/health")
    assert answer.status == 503
    assert json.loads(answer.body) == {"alive": True, "ready": False, "reason": "no comet answers"}
