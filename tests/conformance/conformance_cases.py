"""Autobahn's cases: which of them to run, and whether a run's results are good.

Results are compared with what is accepted, and with an earlier run. Nothing here starts a process.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# From best to worst; Autobahn's other words (FAILED, UNIMPLEMENTED, UNCLEAN, WRONG CODE ...) are worse still.
# INFORMATIONAL is accepted: Autobahn reports it where the RFC leaves the choice to the server (7.1.6, 7.13.*).
# NON-STRICT is not accepted: no rule was broken, but a mistake was noticed late, or something before it not answered.
RANKED = ("OK", "INFORMATIONAL", "NON-STRICT")
ACCEPTED = ("OK", "INFORMATIONAL")

FIRST_COMPRESSION_SECTION = 12
QUICK_CASES_OF_A_COMPRESSION_GROUP = 4


class Outcome(NamedTuple):
    """Autobahn's two verdicts on one case.

    `behavior` judges the answers. `behavior_close` judges how the connection ended: the close code, which side closed,
    and whether the server shut the TCP connection first (RFC 6455 §7.1.1). Both have to be accepted.
    """

    behavior: str
    behavior_close: str

    def is_accepted(self) -> bool:
        return all(word in ACCEPTED for word in self)

    def is_worse_than(self, other: "Outcome") -> bool:
        return any(rank(mine) > rank(theirs) for mine, theirs in zip(self, other, strict=True))

    def __str__(self) -> str:
        return f"{self.behavior}, close {self.behavior_close}"


NOT_RUN = Outcome("NOT RUN", "NOT RUN")


def rank(word: str) -> int:
    """Return 0 for the best verdict, and higher numbers for worse ones."""
    return RANKED.index(word) if word in RANKED else len(RANKED)


def by_number(case: str) -> tuple[int, ...]:
    """Return the key that sorts 2.10 after 2.9."""
    return tuple(int(part) for part in case.split("."))


def choose_cases(cases: Sequence[str], *, everything: bool) -> list[str]:
    """Leave out most cases of the compression groups (12.*, 13.*), unless `everything` is requested."""

    def is_quick(case: str) -> bool:
        section, *_, number = by_number(case)
        return section < FIRST_COMPRESSION_SECTION or number <= QUICK_CASES_OF_A_COMPRESSION_GROUP

    return [case for case in cases if everything or is_quick(case)]


def faults(cases: Iterable[str], found: Mapping[str, Outcome], kept: Mapping[str, Outcome]) -> dict[str, str]:
    """Find the faults of a run.

    Args:
        cases: The requested cases.
        found: The results of this run; a missing case counts as not run.
        kept: The results of an earlier run. A case that is missing here is a fault too: otherwise every run would
            pass against an empty file.

    Returns:
        Case to reason, for each case at fault, in the order of the numbers.
    """
    reasons = {}
    for case in sorted(cases, key=by_number):
        outcome = found.get(case, NOT_RUN)
        if not outcome.is_accepted():
            reasons[case] = str(outcome)
        elif case not in kept:
            reasons[case] = f"{outcome}; there is no kept result to compare with"
        elif outcome.is_worse_than(kept[case]):
            reasons[case] = f"{outcome}; was {kept[case]}"
    return reasons


def read_report(index: Path) -> dict[str, Outcome]:
    """Read the `index.json` that wstest writes: agent to case to entry; empty if it reached no server."""
    agents = json.loads(index.read_text()).values()
    return {case: as_outcome(entry) for agent in agents for case, entry in agent.items()}


def read_kept(path: Path) -> dict[str, Outcome]:
    """Read the stored results; empty if there is no file yet."""
    if not path.exists():
        return {}
    return {case: as_outcome(entry) for case, entry in json.loads(path.read_text()).items()}


def as_outcome(entry: Mapping[str, str]) -> Outcome:
    return Outcome(entry["behavior"], entry["behaviorClose"])


def write_kept(path: Path, results: Mapping[str, Outcome]) -> None:
    """Write the results, one case per line, so that a change in one case is a diff of one line."""
    lines = [
        f"  {json.dumps(case)}: "
        + json.dumps({"behavior": results[case].behavior, "behaviorClose": results[case].behavior_close})
        for case in sorted(results, key=by_number)
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
