"""How long jobs take, from what earlier records took."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import median

from ...leaderboard.records import Case, Record

MACHINE = ("device", "processor", "threads")
# Without any record: seconds for a member's answer to an image, and to train a member.
UNKNOWN_ANSWER, UNKNOWN_TRAINING = 0.02, 60.0
# Parts of the key that only records of one cell share.
LONGEST = 7
_Key = tuple[Hashable, ...]


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
        local, others = defaultdict[_Key, list[float]](list), defaultdict[_Key, list[float]](list)
        for record in records:
            case, about = record.case, record.environment
            is_local = here is not None and all(about.get(name) == here[name] for name in MACHINE)
            attack = record.attack_seconds / math.prod(case.shape)
            training = record.training_seconds / case.submodels
            for seconds, keys in ((attack, _cells(case)), (training, _trainings(case))):
                for key in keys:
                    (local if is_local else others)[key].append(seconds)
        locally = {key: median(seconds) for key, seconds in local.items()}
        elsewhere = {key: median(seconds) for key, seconds in others.items()}
        same_cell = [key for key in locally if len(key) == LONGEST and elsewhere.get(key)]
        ratios = [locally[key] / elsewhere[key] for key in same_cell]
        self.ratio = median(ratios) if ratios else None
        scaled = {key: seconds * (self.ratio or 1) for key, seconds in elsewhere.items()}
        self._seconds = scaled | locally

    def attack(self, case: Case) -> float:
        """Seconds to measure a case."""
        return self._of(_cells(case), UNKNOWN_ANSWER) * math.prod(case.shape)

    def training(self, case: Case) -> float:
        """Seconds to train a case's population, without what it starts from."""
        return self._of(_trainings(case), UNKNOWN_TRAINING) * case.submodels

    def _of(self, keys: Sequence[_Key], unknown: float) -> float:
        """What the most similar took."""
        return next((self._seconds[key] for key in keys if key in self._seconds), unknown)


def _cells(case: Case) -> list[_Key]:
    """What cells of about the same speed have in common, from the most to the least similar."""
    alike = "attack", case.dataset, case.budget, case.attack, case.protocol
    kind = "attack", case.dataset, case.attack
    return [(*alike, case.defense, case.eps), alike, kind, ("attack", case.attack), ("attack",)]


def _trainings(case: Case) -> list[_Key]:
    """The same of trainings."""
    alike = "training", case.dataset, case.budget
    return [(*alike, case.defense), alike, alike[:2], alike[:1]]
