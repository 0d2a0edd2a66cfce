"""What publishers and subscribers saw, counted, and held against the rules. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from tests.chaos.publisher import Push
from tests.chaos.subscriber import Subscriber

ANSWER_SECONDS = 4.0
SLOW_SECONDS = 1.8
"""Less than one attempt at a comet that has it not stored takes (2 s), and more than a busy machine."""

MEASURING_SECONDS = 0.3
"""By how much the load, which shares the machine with the cluster, may be late itself."""


@dataclass(frozen=True)
class Rules:
    """What a scenario may cost at most, in seconds; None: it is shown, but no rule. Losing is never allowed."""

    refusal: float | None = 0.0
    delay: float | None = None
    away: float | None = None
    named_dead: float | None = None
    leaving: float | None = 10.0
    slow: int | None = None


@dataclass
class Outcome:
    """The figures of a scenario. Times are seconds."""

    pushes: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    never_acknowledged: int = 0
    delivered: int = 0
    lost: int = 0
    lost_in_store: int = 0
    duplicated_mids: int = 0
    duplicated_ids: int = 0
    out_of_order: int = 0
    gaps: int = 0
    not_back: int = 0
    slow: int = 0
    longest_refusal: float = 0.0
    longest_answer: float = 0.0
    longest_delay: float = 0.0
    longest_away: float = 0.0
    moved: int = 0
    named_dead: float = 0.0
    leaving: float = 0.0

    def lines(self) -> Iterable[str]:
        """For people."""
        for field in fields(self):
            value = getattr(self, field.name)
            yield (
                f"  {field.name.replace('_', ' '):20}{value:10.2f} s"
                if isinstance(value, float)
                else f"  {field.name.replace('_', ' '):20}{value:7d}"
            )

    def broken(self, rules: Rules, slack: float = MEASURING_SECONDS) -> list[str]:
        """The rules that do not hold, in words; times may be `slack` seconds longer."""
        found = [
            f"{name.replace('_', ' ')}: {count}"
            for name in (
                "never_acknowledged",
                "lost",
                "lost_in_store",
                "duplicated_mids",
                "duplicated_ids",
                "out_of_order",
                "gaps",
                "not_back",
            )
            if (count := getattr(self, name))
        ]
        if rules.refusal == 0 and self.refused:
            found.append(f"{self.refused} refused")
        if rules.slow is not None and self.slow > rules.slow:
            found.append(f"{self.slow} answers took more than {SLOW_SECONDS:g} s when all could know better")
        limits = {
            "longest_refusal": rules.refusal,
            "longest_answer": ANSWER_SECONDS,
            "longest_delay": rules.delay,
            "longest_away": rules.away,
            "named_dead": rules.named_dead,
            "leaving": rules.leaving,
        }
        for name, limit in limits.items():
            if limit is not None and getattr(self, name) > limit + slack:
                found.append(f"{name.replace('_', ' ')}: {getattr(self, name):.2f} s, the rule is {limit:g} s")
        return found


def judge(pushes: Sequence[Push], subscribers: Sequence[Subscriber], logs: Mapping[str, Mapping[str, int]]) -> Outcome:
    """Count. `logs`: what each key's log holds in the end, the mids by their ids."""
    outcome = Outcome(
        pushes=len(pushes),
        acknowledged=sum(push.mid > 0 for push in pushes),
        refused=sum(len(push.refused) for push in pushes),
        unknown=sum(push.unknown for push in pushes),
        never_acknowledged=sum(not push.mid for push in pushes),
        longest_refusal=max((push.refusal for push in pushes), default=0.0),
        longest_answer=max((push.longest_answer for push in pushes), default=0.0),
        lost_in_store=sum(push.kept and push.mid > 0 and push.id not in logs[push.key] for push in pushes),
    )
    by_key: dict[str, list[Push]] = defaultdict(list)
    for push in pushes:
        by_key[push.key].append(push)
        outcome.duplicated_ids += push.mid > 0 and logs[push.key].get(push.id, push.mid) != push.mid
    outcome.out_of_order += sum(map(_against_publishers, by_key.values()))
    for subscriber in subscribers:
        _add(outcome, subscriber, by_key[subscriber.key])
    return outcome


def _add(outcome: Outcome, subscriber: Subscriber, pushes: Sequence[Push]) -> None:
    faults = subscriber.faults
    outcome.delivered += len(subscriber.seen)
    outcome.duplicated_mids += faults.duplicated_mids
    outcome.duplicated_ids += faults.duplicated_ids
    outcome.out_of_order += faults.out_of_order
    outcome.gaps += faults.gaps
    outcome.not_back += not subscriber.joined
    outcome.moved += len(subscriber.moved)
    outcome.longest_away = max([outcome.longest_away, *(back - left for left, back in subscriber.away)])
    for push in pushes:
        if not (push.kept and push.mid):
            continue
        seen = subscriber.seen.get(push.id)
        if seen is None:
            outcome.lost += 1
        else:
            outcome.duplicated_ids += seen[0] != push.mid
            outcome.longest_delay = max(outcome.longest_delay, seen[1] - push.acknowledged)


def missing(pushes: Iterable[Push], subscribers: Iterable[Subscriber]) -> int:
    """How many acknowledged messages subscribers still wait for."""
    by_key: dict[str, list[Push]] = defaultdict(list)
    for push in pushes:
        if push.kept and push.mid:
            by_key[push.key].append(push)
    return sum(push.id not in subscriber.seen for subscriber in subscribers for push in by_key[subscriber.key])


def _against_publishers(pushes: Sequence[Push]) -> int:
    """How often a push that began after another one of its key was acknowledged has the lower mid."""
    events = sorted(
        [(push.sent, 1, push.mid) for push in pushes if push.mid]
        + [(push.acknowledged, 0, push.mid) for push in pushes if push.mid]
    )
    highest, wrong = 0, 0
    for _, began, mid in events:
        if began:
            wrong += mid <= highest
        else:
            highest = max(highest, mid)
    return wrong + sum(count - 1 for count in Counter(push.mid for push in pushes if push.mid).values())
