"""One call: the worst case of a list of networks, with scores and gates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .. import metrics
from ..attacks import ATTACKS, ThreatModel
from ..defenses import Population
from ..files import write_atomically
from ..leaderboard import gates, records, rows
from ..leaderboard.formats import bound, format_eps, format_score
from ..leaderboard.gates import Gate
from ..leaderboard.records import Case, Protocol, Record
from .case import Subject, build_case, protocol_attacks, protocols
from .evaluation import numbers_for, subject_of
from .experiment import Experiment
from .measure import measure

# The curve against eps that the gates look at, in shares of the eps judged at.
CURVE_SHARES = (0.5, 2.0, 8.0)


@dataclass(frozen=True)
class Verdict:
    """How a population fares against an attacker who knows all but the draw.

    Attributes:
        correct: (n * draws, N) bool, under the strongest of all attacks for each image.
        images: (N, C, H, W), the perturbed images of that attack.
        worst: worst-case accuracy with its interval.
        claimed: accuracy under the attacks of defenses' authors, on one draw; None where none of
            them supports the norm.
        gates: checks that the figures must pass to be believed.
        row: every attack's and protocol's records and further scores, as the page shows them.
    """

    correct: metrics.Correct
    images: Tensor
    worst: metrics.Score
    claimed: metrics.Score | None
    gates: list[Gate]
    row: rows.Row

    def __str__(self) -> str:
        """A few lines to read: the figures, in percent, and the gates that did not pass."""
        case, row = self._case, self.row
        trusted = gates.trusted(row, self.gates)
        figures = {
            "clean": format_score(row.score("none")),
            "claimed": bound(format_score(self.claimed), sure=row.complete),
            "worst case": bound(format_score(self.worst), sure=trusted),
        }
        pending = [gate for gate in self.gates if gate.outcome not in ("passed", "not applicable")]
        pending.sort(key=lambda gate: gate.outcome != "failed")
        shape = " x ".join(map(str, self.images.shape[1:]))
        return "\n".join(
            [
                f"{row.label} (n={row.submodels}) on {case.images:,} images ({shape}) of "
                f"{case.dataset}, {case.norm}, eps = {format_eps(case.eps, row.facts.eps_unit)}, "
                f"{case.budget} budget, in percent with 95% intervals:",
                *(f"  {name:12}{figure}" for name, figure in figures.items()),
                *["  ≤: the truth may be lower, since an attack is missing or a gate failed"]
                * (not trusted),
                f"gates: {gates.counted(self.gates)}",
                *(f"  {gate.outcome}: {gate.name} ({gate.figure})" for gate in pending),
            ]
        )

    @property
    def _case(self) -> Case:
        """Of any attack."""
        return next(r.case for r in self.row.records if r.case.attack != "none")

    def robustbench(
        self,
        path: Path | None = None,
        *,
        link: str,
        name: str,
        authors: str,
        venue: str,
        architecture: str,
        additional_data: bool,
        reported: float,
    ) -> dict[str, str | int | bool]:
        """What RobustBench asks of a submission, for `model_info/<dataset>/<norm>/<id>.json`.

        Its leaderboard is of all test images, which is for the caller to see to. `autoattack_acc`
        is by this suite's AutoAttack, `external` by all attacks; it runs the standard one itself.

        Args:
            path: a file to write it to.
            link, name, authors, venue: of the paper; name is its title.
            additional_data: whether more than the dataset was trained on.
            reported: robust accuracy in percent, by the authors.

        Raises:
            ValueError: a random classifier, a verdict without AutoAttack, or of another budget than
                "paper": it takes none of them.
        """
        case, autoattack = self._case, self.row.score("autoattack")
        if case.submodels * case.draws > 1 or autoattack is None:
            raise ValueError(
                "RobustBench takes one deterministic network under AutoAttack: judge "
                "[AveragedEnsemble(Population(modules))], say, with autoattack among the attacks"
            )
        if case.budget != "paper":
            raise ValueError(f'the budget was {case.budget!r}: judge with budget="paper"')
        percent = {
            "clean_acc": self.row.score("none"),
            "autoattack_acc": autoattack,
            "external": self.worst,
        }
        content: dict[str, str | int | bool] = {
            "link": link,
            "name": name,
            "authors": authors,
            "additional_data": additional_data,
            "number_forward_passes": 1,
            "dataset": case.dataset,
            "venue": venue,
            "architecture": architecture,
            "eps": format_eps(case.eps, self.row.facts.eps_unit),
            **{what: f"{100 * score.value:.2f}" for what, score in percent.items() if score},
            "reported": f"{reported:.2f}",
            "unreliable": any(gate.passed is False for gate in self.gates),
        }
        if path:
            write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
        return content


def judge(
    modules: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    *,
    probabilities: Sequence[float] | None = None,
    draws: int = 1,
    attacks: Sequence[str] | None = None,
    dataset: str = "own",
    name: str = "own",
    budget: str = "quick",
    seed: int = 0,
    batch_size: int = 250,
    results: Path | str | None = None,
) -> Verdict:
    """Attack a population with everything that supports the norm.

    Args:
        modules: n networks that map images in [0, 1] to logits; one, drawn at random, answers.
        images: (N, C, H, W), float, in [0, 1], on the networks' device; labels: (N,) int64.
        probabilities: (n,) with which networks are drawn; default: uniform.
        draws: over how many fresh passes of each network expectations are taken, where networks
            draw random numbers themselves, such as 16; 1: they are deterministic.
        attacks: names of registered attacks; default: all that support the norm. The gates say "not
            run" where they need others.
        dataset, name: what records call the images and the defense; a registered dataset's numbers
            are taken.
        budget: how much is spent: "smoke", "quick", "paper-short" or "paper".
        seed: all randomness follows from it.
        batch_size: most images processed at once.
        results: a folder for the records, as they come; `python -m
            randomized_defense_bench.leaderboard --results` makes their page.

    Raises:
        LookupError, ValueError, AttackError: as `evaluate`.
    """
    if isinstance(attacks, str):
        raise TypeError(f"attacks must be a list of names, got {attacks!r}: [{attacks!r}]")
    population = Population(modules, probabilities=probabilities, draws=draws)
    subject = subject_of(
        population,
        images,
        labels,
        threat_model,
        dataset=dataset,
        name=name,
        batch_size=batch_size,
    )
    numbers = numbers_for(dataset, budget, threat_model, batch_size)
    return judge_subject(
        subject,
        threat_model,
        numbers,
        attacks=attacks,
        budget=budget,
        seed=seed,
        results=Path(results) if results else None,
    )


def judge_subject(
    subject: Subject,
    threat_model: ThreatModel,
    numbers: Experiment,
    *,
    attacks: Sequence[str] | None = None,
    budget: str,
    seed: int,
    results: Path | None,
) -> Verdict:
    """The same for a subject, under the numbers of an experiment; see `judge`."""
    population, images = subject.population, subject.images
    supported = [attack for attack in ATTACKS if threat_model.norm in ATTACKS[attack].norms]
    chosen = list(supported if attacks is None else attacks)
    # By name, as rows compare them: of equals the first counts.
    real = sorted(attack for attack in chosen if ATTACKS[attack].kind != "control")
    if not real:
        raise ValueError(f"attacks must name an attack (known: {', '.join(ATTACKS)}), got {chosen}")
    planned: list[tuple[str, Protocol, float]] = [
        *((attack, "draw", 1.0) for attack in ("none", *real)),
        *((attack, "draw", 1.0) for attack in chosen if attack not in ("none", *real)),
        *(
            (attack, "draw", share)
            for attack in chosen
            if _swept(attack)
            for share in CURVE_SHARES
            # In Linf all of the box is in reach of 1, and no further point is another.
            if threat_model.norm == "L2" or share * threat_model.eps <= 1
        ),
        *(
            (attack, protocol, 1.0)
            for protocol in protocols(several=len(population) > 1, random=population.random)
            for attack in protocol_attacks(protocol, threat_model.norm)
            if attack in chosen
        ),
    ]
    if results:
        _refuse_namesakes(subject, records.read_all(results) if results.is_dir() else ())
    measured: list[Record] = []
    tried: list[metrics.Answers] = []
    strongest = images
    for attack, protocol, share in tqdm(planned, "judging", leave=False, disable=None):
        at = ThreatModel(threat_model.norm, share * threat_model.eps)
        case = build_case(subject, attack, at, numbers, protocol=protocol, budget=budget, seed=seed)
        ranked = share == 1 and protocol == "draw"
        repeat = ranked and _swept(attack)
        record, perturbed = measure(case, subject, headline=share == 1, repeat=repeat)
        measured.append(record)
        if results:
            records.write(record, results)
        if ranked and attack in real:
            tried.append(record.answers)
            best = torch.from_numpy(metrics.strongest_attack(tried) == len(tried) - 1)
            strongest = torch.where(best.to(images.device).view(-1, 1, 1, 1), perturbed, strongest)
    worst = metrics.worst_case(tried)
    (row,) = rows.rows(rows.populations(measured), threat_model.norm, threat_model.eps)
    return Verdict(
        correct=np.asarray(worst.correct, bool),
        images=strongest,
        worst=metrics.score([worst]),
        claimed=row.claimed,
        gates=gates.check(row),
        row=row,
    )


def _refuse_namesakes(subject: Subject, kept: Iterable[Record]) -> None:
    """Refuse, with a ValueError, a name under which records of other networks are kept."""
    for record in kept:
        same = (record.case.dataset, record.case.defense) == (subject.dataset, subject.defense)
        if same and record.population_sha256 != subject.population_sha256:
            raise ValueError(
                f"the results hold records of another network called {subject.defense!r} (weights, "
                "code or settings differ): choose another name (--name), or folder (--results)"
            )


def _swept(attack: str) -> bool:
    """Whether it is the one of its kind that gates look at: on the population, against eps."""
    return ATTACKS[attack].swept and ATTACKS[attack].kind == "population"
