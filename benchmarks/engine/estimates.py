"""How long jobs take, from what earlier records took."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import median

from ...leaderboard.records import Case, Record

MACHINE = ("device", "processor", "threads")
# Without any record: seconds for an answer to one image, and to train one member.
UNKNOWN = {"attack": 0.02, "training": 60.0}


class Estimates:
    """Seconds by the most similar cells that have records.

    Args:
        records: of any machine.
        here: this machine's `environment`. What others took is scaled by the median ratio of the
            cells that both measured; None: everything is taken as it is.

    Attributes:
        ratio: this machine's seconds for one of the others'; None: not known, and 1 is taken.
    """

    def __init__(self, records: Iterable[Record], here: Mapping[str, str] | None = None) -> None:
        timed: dict[str, dict[bool, dict[tuple[Hashable, ...], list[float]]]] = {
            kind: {True: defaultdict(list), False: defaultdict(list)} for kind in UNKNOWN
        }
        for record in records:
            case = record.case
            about = record.environment
            local = here is not None and all(about.get(name) == here[name] for name in MACHINE)
            attack = record.attack_seconds / math.prod(case.shape)
            for kind, seconds, alike in (
                ("attack", attack, _cells_alike(case)),
                ("training", record.training_seconds / case.submodels, _trainings_alike(case)),
            ):
                for key in alike:
                    timed[kind][local][key].append(seconds)
        pairs = [
            median(there[key]) / median(timed["attack"][False][key])
            for there in (timed["attack"][True],)
            for key in there
            if len(key) == len(_LONGEST) and median(timed["attack"][False].get(key, [0.0])) > 0
        ]
        self.ratio = median(pairs) if pairs else None
        self._medians = {
            kind: {
                **{k: median(v) * (self.ratio or 1) for k, v in by_place[False].items()},
                **{k: median(v) for k, v in by_place[True].items()},
            }
            for kind, by_place in timed.items()
        }

    def attack(self, case: Case) -> float:
        """Seconds to measure a case."""
        return self._of("attack", _cells_alike(case)) * math.prod(case.shape)

    def training(self, case: Case) -> float:
        """Seconds to train a case's population, without what it starts from."""
        return self._of("training", _trainings_alike(case)) * case.submodels

    def _of(self, kind: str, alike: Sequence[tuple[Hashable, ...]]) -> float:
        """The median of the first of these that has any."""
        medians = self._medians[kind]
        return next((medians[key] for key in alike if key in medians), UNKNOWN[kind])


_LONGEST = ("dataset", "budget", "attack", "protocol", "defense", "eps")


def _cells_alike(case: Case) -> list[tuple[Hashable, ...]]:
    """What cells of the same speed have in common, from the most to the least similar."""
    full = tuple(getattr(case, name) for name in _LONGEST)
    return [full, full[:4], (case.dataset, case.attack), (case.attack,), ()]


def _trainings_alike(case: Case) -> list[tuple[Hashable, ...]]:
    budget = case.dataset, case.budget
    return [(*budget, case.defense), budget, (case.dataset,), ()]
