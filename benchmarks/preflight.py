"""What is looked at once, before anything is spent on a population.

What would give a wrong number is refused with a ValueError; what is odd is a warning, which the
record of clean images repeats and a gate shows. Each is one line that names the cure.
"""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from unittest import mock

import torch
from torch import Tensor, nn

from ..attacks.draws import forget_trials, other_generators
from ..attacks.freezing import changed, frozen, held, on_trial, to_evaluate, within
from ..attacks.objectives import answered
from ..attacks.seeding import derive_seed, generator, global_seed
from ..attacks.threat_model import TOLERANCE, ThreatModel
from ..defenses import Population
from ..defenses.checkpoint import built_again
from ..defenses.description import description
from ..defenses.population import Cast
from ..defenses.surrogate import ROUNDING, Plan, alike, around
from .data_doubts import doubts
from .environment import full_precision
from .store import digest_of
from .tuning import fastest_plan

# The same in other batches, where one rounding may turn a quantized number into the next.
OTHER = 0.1
# Seconds for the search of a number of images that a network takes.
MOMENT = 2.0
# The share of images whose largest answer several classes may share.
TIED = 0.05
# Images at which gradients are looked at.
PROBED = 16
# So many images, at least, every member is asked about again.
SHARED = 128
# Images of which a random network is asked one at a time and together.
IN_LAW = 64
# Along so many random directions, by these steps, answers must change as the gradient says.
DIRECTIONS, STEPS, FOLLOWED = 4, (1e-3, 0.03, 0.1, 0.5), 0.5
# Draws may be alike by chance: of a coin that comes up once in ten passes, one in 25 times.
PASSES = 32
# How often draws may miss one that is rare.
MISSED = 0.02


@dataclass(frozen=True)
class Preflight:
    """What was found.

    Attributes:
        classes: K.
        findings: what is odd, a line each.
        blind: numbers of the members without any gradient in their images.
    """

    classes: int
    findings: tuple[str, ...]
    blind: tuple[int, ...]

    def ready(self, population: Population) -> Population:
        """The same population, which gradients may be asked of."""
        if not self.blind:
            return population
        members = [
            Blind(member) if number in self.blind else member
            for number, member in enumerate(population.submodels)
        ]
        law, draws = population.probabilities, population.draws
        return Population(members, probabilities=law, draws=draws, chunk=population.chunk)


class Blind(nn.Module):
    """A member without any gradient, which has one of zero: attacks stand still, queries count."""

    def __init__(self, member: nn.Module) -> None:
        super().__init__()
        self.member = member

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        logits: Tensor = self.member(images.detach())
        return logits.detach() + 0 * images.flatten(1).sum(1, keepdim=True)


@torch.inference_mode(False)
def preflight(
    population: Population,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int,
    threat_model: ThreatModel | None = None,
    plan: Plan | None = None,
    expected: int | None = None,
) -> Preflight:
    """Check a population on all images that it will be judged on, and warn of what is odd.

    Args:
        images: (N, C, H, W) in [0, 1]; labels: (N,) int64.
        batch_size: most images classified at once.
        threat_model: a ball, of which random corners are looked at as well.
        plan: how attacks compute; None: as is fastest on this machine.
        expected: the number of classes; None: any.

    Raises:
        ValueError: as `check_answers`, or a member that answers nothing finite.
    """
    forget_trials()
    classes, random = check_answers(population, images, labels, expected=expected)
    answers, blind = [], []
    moved = images
    if threat_model:
        signs = torch.rand(images.shape, generator=generator(0, "corners")).sub(0.5).sign()
        moved = threat_model.project(images + threat_model.eps * signs.to(images), images)
    odd: defaultdict[str, list[str]] = defaultdict(list)
    kinds = [type(_as_given(member)) for member in population.submodels]
    for number, member in enumerate(population.submodels):
        whose = _name(number, member)
        # Members of a kind are asked again about all images, together.
        shares = max(1, min(kinds.count(kinds[number]), len(images) // SHARED))
        share = slice(kinds[:number].count(kinds[number]) % shares, None, shares)
        corners = moved[share].contiguous()
        with frozen(population), global_seed(number, images.device):
            with torch.no_grad(), full_precision():
                passes = [_pass(member, images, batch_size) for _ in range(population.draws)]
                pair = [_pass(member, corners, batch_size) for _ in range(2)]
                varies = not all(alike(some[0], one) for some in (passes, pair) for one in some)
                if not population.random:
                    # The same images in other batches and places, and some of them alone.
                    again = _pass(member, images[share].flip(0), max(1, batch_size // 3)).flip(0)
                    pairs = [(passes[0][share], again)]
                    for asked, given in ((passes[0], images), (pair[0], corners)):
                        some = _spread_out(given, PROBED)
                        pairs += [(asked[some], _pass(member, given[some], 1))]
                    if differ := not all(alike(first, second, OTHER) for first, second in pairs):
                        varies |= not alike(passes[0], _pass(member, images, batch_size))
                    if varies:
                        raise ValueError(_needs_draws(whose))
                    if differ:
                        raise ValueError(_batch_decides(whose))
                elif _batch_matters(member, images, labels, batch_size):
                    raise ValueError(_batch_decides(whose))
                elif needed := _draws_needed(member, images, population.draws):
                    odd[
                        "answers a whole batch by one draw, of which few are unlike the others: "
                        f"draws={population.draws} may miss what is rare, and the interval is too "
                        f"narrow then; take draws={needed}, or draw for each image"
                    ] += [whose]
            cause, zero, infinite = _without_gradient(member, images[:PROBED])
            follows = cause or zero > 0.9 or infinite or _follows(member, images[:PROBED])
            fixed = not cause and _edges_are_fixed(member, images[:PROBED])
            if not (cause or _same_with_gradients(member, images[:PROBED], number)):
                odd[
                    "answers otherwise with gradients on than under torch.no_grad(), where it is "
                    "scored: attacks follow another network; drop torch.is_grad_enabled(), or set "
                    "torch.backends.mha.set_fastpath_enabled(False) for torch's transformers"
                ] += [whose]
        random |= varies
        logits = torch.stack(passes)
        finite = answered(logits)
        # A class that no label names, where there is no answer.
        answers.append(torch.where(finite, logits.argmax(-1), classes).cpu().numpy())
        if not finite.any():
            raise ValueError(f"{whose} returns no finite logits: look for NaN in its weights")
        if not finite.all():
            odd["does not return finite logits for some images, which count as wrong"] += [whose]
        top = logits == logits.max(-1, keepdim=True).values
        if (ties := (top.sum(-1) > 1)[finite].float().mean().item()) > TIED:
            odd[
                f"gives its largest answer to several classes at {ties:.0%} of images, where the "
                "first of them counts: return logits, in float32"
            ] += [whose]
        squashed = logits.min() >= 0 and (logits.double().sum(-1) - 1).abs().max() < 0.01
        if squashed:
            odd["returns probabilities, which hide gradients: return logits"] += [whose]
        if cause:
            blind.append(number)
            odd[
                f"has no gradient ({cause}): attacks by gradients stand still; of votes give the "
                "mean of probabilities, without no_grad and argmax"
            ] += [whose]
        elif zero > 0.9 and not squashed:
            odd[
                f"has a gradient of zero at {zero:.0%} of images, as rounding, votes and saturated "
                "sigmoids have: attacks by gradients stand still; let gradients pass straight "
                "through rounding, take the mean of probabilities for a vote, and return what goes "
                "into a sigmoid"
            ] += [whose]
        if infinite:
            odd[
                f"has an infinite gradient at {infinite:.0%} of images, as a square root has at 0: "
                "attacks by gradients ignore it; add a small number inside"
            ] += [whose]
        if fixed:
            odd[
                "has no gradient in pixels that are 0 or 1, as clamp() and nn.Hardtanh have none "
                "at their bounds: attacks by gradients leave them; do without, images are in [0, 1]"
            ] += [whose]
        if hooked := [
            f"{name or 'itself'} ({type(part).__name__})"
            for name, part in member.named_modules()
            if getattr(part, "_backward_hooks", 0) or getattr(part, "_backward_pre_hooks", 0)
        ]:
            odd[
                f"has backward hooks on {', '.join(hooked[:3])}, which may change the gradients "
                "that attacks follow: remove() them"
            ] += [whose]
        elif not follows:
            odd[
                "has a gradient that does not tell how its answers change, as where backward() of "
                "an autograd.Function is written by hand: look whether it is right"
            ] += [whose]
    findings = [
        f"{whose[0]}{f', as {len(whose) - 1} more,' * (len(whose) > 1)} {what}"
        for what, whose in odd.items()
    ]
    findings += _same_members(population)
    if population.random and not random:
        findings += [
            f"draws={population.draws}, but no randomness was seen in any member: without any, "
            "draws=1 says the same and costs less (for what draws in training mode alone, such as "
            "dropout: net.eval(); net.dropout.train())"
        ]
    names = [_name(number, member) for number, member in enumerate(population.submodels)]
    findings += doubts(population, names, answers, images, labels, classes, batch_size)
    chunk = min((plan or fastest_plan(population, images)).chunk, batch_size, len(images))
    told = [*findings, *_too_large(population, images[:2], chunk)]
    with warnings.catch_warnings():
        # Also of a second network at the same place, which Python leaves out unless it is told.
        warnings.simplefilter("always", UserWarning, append=True)
        for finding in told:
            warnings.warn(finding, stacklevel=5)
    return Preflight(classes, tuple(findings), tuple(blind))


def check_radius(threat_model: ThreatModel, images: Tensor) -> None:
    """Refuse, with a ValueError, a ball that holds every image: eps is in units of 0 to 255."""
    reach = 1.0 if threat_model.norm == "Linf" else math.sqrt(images[0].numel())
    if threat_model.eps > reach:
        raise ValueError(
            f"eps {threat_model.eps:g} reaches every image, since pixels lie in [0, 1]: "
            f"write {threat_model.eps:g}/255 if it is in units of 0 to 255"
        )


def check_images(images: Tensor, labels: Tensor) -> None:
    """Refuse, with a ValueError, other images than floats in [0, 1], or labels than integers."""
    for what, tensor in (("images", images), ("labels", labels)):
        if not isinstance(tensor, Tensor):
            raise ValueError(
                f"{what} must be a tensor, got {type(tensor).__name__}: torch.as_tensor({what})"
            )
    if images.ndim != 4 or len(images) == 0 or not images.is_floating_point():
        raise ValueError(
            f"images must be floats of shape (N, C, H, W), got {images.dtype} {tuple(images.shape)}"
        )
    if not (
        images.isfinite().all() and images.min() >= -TOLERANCE and images.max() <= 1 + TOLERANCE
    ):
        raise ValueError(
            f"images must lie in [0, 1], got [{images.min():.4g}, {images.max():.4g}]: "
            "put normalisation inside the module"
        )
    if 0 < images.max() <= 1 / 255:
        raise ValueError(
            f"images must use [0, 1], but none goes beyond {images.max():.4g}: they seem to be "
            "divided by 255 twice"
        )
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"labels must be int64 of shape ({len(images)},), got {labels.dtype} "
            f"{tuple(labels.shape)}"
        )
    if labels.device != images.device:
        raise ValueError(f"images are on {images.device}, labels on {labels.device}: .to() one")


@torch.no_grad()
def check_answers(
    population: Population,
    images: Tensor,
    labels: Tensor,
    *,
    expected: int | None = None,
) -> tuple[int, bool]:
    """Refuse a population that cannot be scored, by its answers to two images.

    Args:
        expected: the number of classes; None: any.

    Returns:
        K, and whether any member is random.

    Raises:
        ValueError: a member that fails, changes its images, is in training mode with a `train()` of
            its own, was made in inference mode or holds weights in a plain list; logits that are
            not floats of shape (N, K), the same K for all; labels that are not below K; answers
            that depend on the rest of the batch, or on passes before; weights that change
            meanwhile; random members without `draws`.
    """
    weights = (*population.parameters(), *population.buffers())
    if any(one.is_meta for one in weights):
        raise ValueError("a submodel is on the meta device, without memory: build it on the CPU")
    if any(one.is_inference() for one in weights):
        raise ValueError("a submodel was made in torch.inference_mode: build it outside of it")
    for name, tensor in (*population.named_parameters(), *population.named_buffers()):
        if tensor.layout != torch.strided:
            raise ValueError(f"{name} is sparse, and cannot be held fixed: to_dense() it")
    for part in to_evaluate(population):
        if getattr(part, "training", False) and type(part).train is not nn.Module.train:
            kind = type(part).__name__
            raise ValueError(
                f"{kind} is in training mode and has a train() of its own: call .eval() on the "
                "network beforehand"
            )
    for number, member in enumerate(population.submodels):
        given = _as_given(member)
        parts = [(name, p.training) for name, p in given.named_modules() if hasattr(p, "training")]
        on = [name or "the outermost module" for name, training in parts if training]
        if population.random and given.training and len(on) < len(parts):
            raise ValueError(
                f"{_name(number, member)} is in training mode in {', '.join(on[:3])}, and not in "
                "all parts: it would be judged in evaluation mode, without dropout; call .eval() "
                "on it, or, for dropout that stays on, give nn.Sequential(network), itself in "
                "evaluation mode"
            )
        if hidden := _hidden(member):
            raise ValueError(
                f"{_name(number, member)} holds weights in {', '.join(hidden[:3])}, which "
                "state_dict() and to() do not find: use nn.ModuleList, or nn.ParameterList"
            )
    probe = torch.cat([images[:1], images[-1:]])
    other = torch.rand(probe.shape, generator=generator(0, "companion")).to(probe)
    other[0] = probe[0]
    random, classes = False, set()
    with frozen(population):
        for number, member in enumerate(population.submodels):
            with on_trial(member) as rewind:
                count, varies = _looked_at(
                    number, member, probe, other, rewind, drawn=population.random
                )
            classes.add(count)
            random |= varies
    if len(classes) > 1:
        raise ValueError(f"submodels must have the same classes, got {sorted(classes)}")
    (count,) = classes
    if expected and count != expected:
        raise ValueError(f"submodels tell {count} classes apart, expected {expected}")
    if labels.min() < 0 or labels.max() >= count:
        raise ValueError(
            f"labels must lie in [0, {count - 1}], the classes of the submodels, "
            f"got [{labels.min()}, {labels.max()}]"
        )
    return count, random


@torch.no_grad()
def answers_of_each(population: Population, images: Tensor) -> Tensor:
    """The logits of every member, drawn from one seed: (n, N, K)."""
    with frozen(population), global_seed(0, images.device):
        return torch.stack([member(images) for member in population.submodels])


def check_kept(population: Population, untrained: Population, images: Tensor) -> None:
    """Refuse, with a ValueError, a population that its state dict does not make again.

    Args:
        untrained: the same as it was built; it takes over the state dict.
    """
    try:
        untrained.load_state_dict(population.state_dict())
    except RuntimeError as error:
        raise ValueError(f"training made other networks than it was given: {error}") from error
    first, second = (answers_of_each(population, images) for _ in range(2))
    loaded = answers_of_each(untrained, images)
    # Of members that keep generators of their own, two passes cannot be compared.
    if alike(first, second) and not alike(first, loaded):
        raise ValueError(
            "its networks answer otherwise once their state_dict() is saved and loaded: keep all "
            "that training changes in parameters and buffers"
        )


def _hidden(member: nn.Module) -> list[str]:
    """Where parts hold weights that are no part of the network, such as in lists of networks."""
    own = set(map(id, (*member.parameters(), *member.buffers())))
    return [
        f"{type(part).__name__}.{name}"
        for part in member.modules()
        for name, value in vars(part).items()
        if not own.issuperset(map(id, _weights(value)))
    ]


def _weights(value: object) -> Iterator[Tensor]:
    """The parameters and buffers in a value."""
    for _, part in within(value):
        if isinstance(part, nn.Parameter):
            yield part
        elif isinstance(part, nn.Module):
            yield from (*part.parameters(), *part.buffers())


def _looked_at(
    number: int,
    member: nn.Module,
    probe: Tensor,
    other: Tensor,
    rewind: Callable[[], None],
    *,
    drawn: bool,
) -> tuple[int, bool]:
    """K of a member, and whether it is random; `drawn`: it may be. See `check_answers`."""
    whose = _name(number, member)
    ask = _asked(whose, member)
    weights, before = [*member.parameters()], held(member)
    versions = [weight._version for weight in weights]
    # What takes turns is another from one pass to the next, if not after many.
    first = ask(probe, 0)
    written = versions != [weight._version for weight in weights]
    settled = [weight.clone() for weight in weights] if written else []
    versions = [weight._version for weight in weights]
    next_one = ask(probe, 0)
    kept = {type(part).__name__ for part in member.modules() if getattr(part, "training", False)}
    hint = f" ({', '.join(sorted(kept))} in training mode)" if kept else ""
    # The first numbers of neighbouring seeds are alike themselves.
    others = [ask(probe, derive_seed(0, "preflight", seed)) for seed in range(1, PASSES)]
    same = alike(first, next_one) and alike(first, ask(probe, 0))
    # What is written once, such as weights that are brought to a norm, stays so.
    later = versions != [weight._version for weight in weights]
    if later and not (settled and all(map(torch.equal, settled, weights))):
        raise ValueError(
            f"{whose} changes its weights as it answers, so that answers depend on those before: "
            "adapt it beforehand, or let it change a copy (torch.func.functional_call)"
        )
    state = changed(before, member)
    named = [f"{type(part).__name__}.{name}" for part, name in state[:3]]
    names = ", ".join(named or ["its weights"])
    if state and not same:
        raise ValueError(
            f"{whose} keeps state from pass to pass ({names}), so that answers depend on those "
            "before: reset it at the start of forward"
        )
    if generators := _seeded(member, probe):
        raise ValueError(
            f"{whose} seeds {generators}'s global generator as it answers, and attacks draw from "
            "it: let it draw from a generator of its own"
        )
    if same and not alike(*_built_twice(member, probe)):
        raise ValueError(
            f"{whose} answers otherwise whenever it is built, with the same weights: what it draws "
            "as it is built is not in its file; keep that in buffers, or draw it by a fixed seed"
        )
    if state or written:
        rewind()
        ask(other, 0)
        if not alike(first, ask(probe, 0)):
            raise ValueError(
                f"{whose} sets itself by the first images that it answers ({names}), here any "
                "others: let it answer a batch of training images beforehand"
            )
    if _asks_the_clock(ask, probe):
        raise ValueError(
            f"{whose} answers otherwise as the clock goes on, and by the same draw within a "
            "moment: seed nothing by the time, and draw from torch's own generator"
        )
    varies = not all(alike(first, one) for one in others)
    if not varies and sum(not torch.equal(first, one) for one in others) > PASSES // 8:
        # What is drawn is the same to the last bit under one seed; what a device rounds is not.
        varies = all(torch.equal(first, ask(probe, 0)) for _ in others)
    if varies and not drawn:
        raise ValueError(_needs_draws(whose, hint))
    elsewhere = (ask(some, 0)[-1:] for some in (probe[:1], probe.flip(0)))
    rounding = ROUNDING if varies else OTHER
    # Of one that keeps a generator of its own, two passes cannot be compared.
    if (same and not alike(first[:1], ask(other, 0)[:1], rounding)) or (
        not varies and not all(alike(first[:1], one, OTHER) for one in elsewhere)
    ):
        raise ValueError(_batch_decides(whose, hint))
    return first.shape[1], varies


def _built_twice(member: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What it answers where all of it that comes from files is built under each of two seeds.

    Two empty tensors where that cannot be seen, or nothing comes from a file.
    """
    answers = []
    for seed in range(2):
        again = _built_again(member, seed)
        if again is member:
            return images[:0], images[:0]
        try:
            with global_seed(0, images.device):
                answers.append(again.to(images.device)(images.clone()))
        # Nothing says that it was to work without what was done to it since.
        except Exception:
            return images[:0], images[:0]
    return answers[0], answers[1]


def _built_again(module: nn.Module, seed: int) -> nn.Module:
    """A module with the parts that come from files built anew; itself where there are none."""
    if again := built_again(module, seed):
        return again
    if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
        # Compiled: it is more than its parts.
        return module
    children = module.named_children()
    return around(module, {name: _built_again(part, seed) for name, part in children})


def _asks_the_clock(ask: Callable[[Tensor, int], Tensor], probe: Tensor) -> bool:
    """Whether a member answers otherwise an hour later, and not a moment later."""
    # Again where the clock went on in between.
    for _ in range(3):
        before = ask(probe, 0)
        with _an_hour_later():
            later = ask(probe, 0)
        if alike(before, ask(probe, 0)):
            return not alike(before, later)
    return False


_CLOCK = Lock()


@contextmanager
def _an_hour_later() -> Iterator[None]:
    """`time.time` and `time.time_ns` are an hour ahead, for whoever calls them by these names."""
    seconds, nanoseconds = time.time, time.time_ns

    def ahead() -> float:
        return seconds() + 3601

    def ahead_ns() -> int:
        return nanoseconds() + 3601 * 10**9

    # Or a second one would take the first one's clock for the machine's.
    with _CLOCK, mock.patch("time.time", ahead), mock.patch("time.time_ns", ahead_ns):
        yield


def _seeded(member: nn.Module, images: Tensor) -> str:
    """Whose global generator is the same after a pass, whatever it was before; "": none is."""
    states = []
    for seed in (1, 2):
        with global_seed(seed, images.device):
            member(images.clone())
            states.append((torch.get_rng_state().numpy().tobytes(), *other_generators()))
    names = ("torch", "Python", "NumPy")
    return next((name for name, one, two in zip(names, *states, strict=True) if one == two), "")


def _spread_out(images: Tensor, most: int) -> Tensor:
    """The numbers of so many images at most, evenly spaced, the first and the last included."""
    return torch.linspace(0, len(images) - 1, min(most, len(images))).long()


def _pass(member: nn.Module, images: Tensor, size: int) -> Tensor:
    """A member's logits, with so many images in a batch."""
    return torch.cat([member(batch).detach() for batch in images.split(size)])


def _needs_draws(whose: str, hint: str = "") -> str:
    return (
        f"{whose} gives another answer in every pass{hint}: it is random in itself, "
        "and needs draws=16, say, over which expectations are taken"
    )


def _batch_decides(whose: str, hint: str = "") -> str:
    return (
        f"answers of {whose} to an image depend on the rest of its batch{hint}, or its place: give "
        "batch norm its running statistics, and decide for each image by itself"
    )


def _batch_matters(member: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> bool:
    """Whether a random member is surer of labels in a batch than of one image at a time.

    A draw that all images of a pass share moves the mean over them by no more than a mean image's
    deviation, as passes over single images show it.
    """
    at = _spread_out(images, min(batch_size, IN_LAW))
    some, right = images[at], labels[at].view(-1, 1)

    def sureness(size: int, passes: int) -> Tensor:
        """(passes, images), where so many images are in a batch."""
        answers = [_pass(member, some, size) for _ in range(passes)]
        return torch.stack([one.double().softmax(-1).gather(1, right)[:, 0] for one in answers])

    alone, together = sureness(1, 4), sureness(len(some), PASSES)
    apart = (alone.mean() - together.mean()).abs()
    varies = torch.maximum(together.mean(1).var(), alone.var(0).mean()) / PASSES
    return bool(apart > 0.02 and apart > 4 * (varies + alone.mean(1).var() / len(alone)).sqrt())


def _draws_needed(member: nn.Module, images: Tensor, draws: int) -> int:
    """How many draws do not miss a rare one that all images of a pass share, but for `MISSED`.

    0 where images are drawn for one by one, or so many are at hand.
    """
    copies = images[[0, -1]].repeat_interleave(4, dim=0)
    passes = []
    for seed in range(PASSES):
        with global_seed(derive_seed(0, "rare", seed), images.device):
            passes.append(member(copies).detach())
    if not all(alike(half[:1].expand_as(half), half) for one in passes for half in one.split(4)):
        return 0
    # Unlike the commonest: of the first three one is common, or none is.
    unlike = min(sum(not alike(one, other) for other in passes) for one in passes[:3])
    if unlike == 0 or (1 - unlike / PASSES) ** draws <= MISSED:
        return 0
    return math.ceil(math.log(MISSED) / math.log(1 - unlike / PASSES))


def _as_given(member: nn.Module) -> nn.Module:
    return member.member if isinstance(member, Cast) else member


def _name(number: int, member: nn.Module) -> str:
    return f"submodel {number} ({type(_as_given(member)).__name__})"


def _asked(whose: str, member: nn.Module) -> Callable[[Tensor, int], Tensor]:
    """A member's checked logits of images, by a seed."""

    def ask(images: Tensor, seed: int) -> Tensor:
        given = images.clone()
        try:
            with global_seed(seed, images.device):
                logits = member(given)
        except Exception as error:
            said = str(error).partition("\n")[0]
            own = [pair for part in member.modules() for pair in vars(part).items()]
            tensors = [name for name, value in own if isinstance(value, Tensor)]
            if "does not require grad" in said:
                raise ValueError(
                    f"{whose} differentiates as it answers, where weights are held fixed and "
                    "gradients off: adapt it beforehand, and wrap the rest in torch.enable_grad()"
                ) from error
            if "size of tensor" in said and tensors:
                said += f"; if {', '.join(tensors[:3])} is of an earlier pass, reset it in forward"
            elif size := _size_that_works(member, images, error):
                said += f"; it takes {size} images at once: pad batches to that inside forward"
            raise ValueError(
                f"{whose} fails on images {tuple(images.shape)} {images.dtype} on "
                f"{images.device}: {said}"
            ) from error
        if given._version or not torch.equal(given, images):
            raise ValueError(f"{whose} changes the images it is given; let it work on a copy")
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            kind = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"{whose} must return float logits, got {kind}")
        if logits.ndim != 2 or len(logits) != len(images) or logits.shape[1] < 2:
            raise ValueError(
                f"{whose} must return logits (N, K) with K > 1: "
                f"for {len(images)} images it returned {tuple(logits.shape)}"
            )
        return logits.detach()

    return ask


def _size_that_works(member: nn.Module, images: Tensor, error: Exception) -> int:
    """A number of images at once, above one, that a member takes; 0: none was found in a moment.

    First those that the error names.
    """
    said, start = str(error), time.perf_counter()
    # What more images do not mend.
    if isinstance(error, torch.OutOfMemoryError) or re.search("per channel|mat1 and mat2", said):
        return 0

    def takes(size: int) -> bool:
        some = images.repeat(-(-size // len(images)), 1, 1, 1)[:size]
        try:
            with global_seed(0, images.device):
                return len(member(some)) == size
        except Exception:
            return False

    named = [int(number) for number in re.findall(r"\d+", said) if len(number) < 4]
    for size in dict.fromkeys([*named, 4, 8, 16, 32, 64, 128]):
        if time.perf_counter() - start > MOMENT:
            break
        if size > 1 and takes(size):
            return 0 if takes(len(images)) else size
    return 0


def _same_members(population: Population) -> list[str]:
    """Whether members have the same weights and code."""
    if len(population) == 1:
        return []
    members = [_as_given(member) for member in population.submodels]
    digests = [digest_of(member.state_dict()) for member in members]
    same: defaultdict[str, list[str]] = defaultdict(list)
    for number, (member, digest) in enumerate(zip(members, digests, strict=True)):
        if digests.count(digest) > 1:
            same[digest + description(nn.ModuleList([member]))] += [str(number)]
    return [
        f"submodels {', '.join(numbers)} are the same: is one network, or one file, there more "
        "than once?"
        for numbers in same.values()
        if len(numbers) > 1
    ]


def _summed(logits: Tensor) -> Tensor:
    """Any sum but the plain one, which is 1 of probabilities: (N, K) -> (N,)."""
    return (logits * torch.arange(1, 1 + logits.shape[1]).to(logits)).sum(1)


def _follows(member: nn.Module, images: Tensor) -> bool:
    """Whether the gradient tells, at any of some scales, how answers change along random corners.

    By the correlation over images and directions, which is near 1 where it is the gradient, and
    stays high across steps that a straight-through gradient leaves out.
    """

    def at(images: Tensor) -> Tensor:
        with global_seed(0, images.device), full_precision():
            return _summed(member(images))

    shape, numbers = (DIRECTIONS, *images.shape), generator(0, "along")
    signs = torch.randn(shape, generator=numbers).sign().to(images)
    # Off the edges of [0, 1], and off ties, of which a pooling window knows one pixel alone.
    images = 0.98 * images + 0.02 * torch.rand(shape[1:], generator=numbers).to(images)
    # Of one that keeps a generator of its own, two passes cannot be compared.
    with torch.no_grad():
        if not alike(at(images), at(images)):
            return True
    leaf = images.clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(at(leaf).sum(), leaf)
    together = []
    for step in STEPS:
        told, seen = [], []
        for sign in signs:
            ahead, back = (images + step * sign).clamp(0, 1), (images - step * sign).clamp(0, 1)
            told.append(((ahead - back) * gradient).flatten(1).sum(1))
            with torch.no_grad():
                seen.append((at(ahead) - at(back)).to(gradient))
        pair = torch.stack([torch.cat(told), torch.cat(seen)])
        # Nothing changes on steps within one level of rounding.
        together.append(float(torch.corrcoef(pair)[0, 1].nan_to_num(-1.0)))
        if together[-1] > FOLLOWED:
            return True
    return max(together) == -1.0


def _without_gradient(member: nn.Module, images: Tensor) -> tuple[str, float, float]:
    """Why there is no gradient in images, or ""; the shares of zero and of infinite ones."""
    leaf = images.clone().requires_grad_()
    try:
        with torch.enable_grad():
            sums = _summed(member(leaf))
            (gradient,) = torch.autograd.grad(sums.sum(), leaf)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if "heckpoint" in str(error):
            raise ValueError(
                "a submodel recomputes activations where gradients of images cannot be had: "
                "checkpoint(..., use_reentrant=False)"
            ) from error
        return str(error).partition("\n")[0].partition(". ")[0].rstrip("."), 0.0, 0.0
    zero = (gradient == 0).flatten(1).all(1)
    infinite = sums.isfinite() & ~gradient.isfinite().flatten(1).all(1)
    return "", zero.float().mean().item(), infinite.float().mean().item()


def _edges_are_fixed(member: nn.Module, images: Tensor) -> bool:
    """Whether pixels of 0 and 1 have no gradient, while a little inside of [0, 1] they have."""
    edge, shares = (images == 0) | (images == 1), []
    if not edge.any():
        return False
    for some in (images, images.clamp(STEPS[0], 1 - STEPS[0])):
        leaf = some.clone().requires_grad_()
        with torch.enable_grad(), global_seed(0, images.device):
            (gradient,) = torch.autograd.grad(_summed(member(leaf)).sum(), leaf)
        shares.append((gradient[edge] != 0).float().mean())
    there, inside = shares
    return bool(inside > 0.1 and there < inside / 10)


def _same_with_gradients(member: nn.Module, images: Tensor, seed: int) -> bool:
    """Whether answers are the same with gradients on; True where no two passes are the same."""
    answers = []
    for on in (False, False, True):
        with torch.set_grad_enabled(on), global_seed(seed, images.device), full_precision():
            answers.append(member(images.clone().requires_grad_(on)).detach())
    first, second, third = answers
    return alike(first, third, OTHER) or not alike(first, second)


def _too_large(population: Population, images: Tensor, chunk: int) -> list[str]:
    """Whether gradients on all draws need more memory than the machine has.

    By what autograd keeps for a few images; where that cannot be told nothing is said.
    """
    member = population.submodels[0]
    weights = {weight.untyped_storage().data_ptr() for weight in member.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    try:
        with (
            frozen(population),
            global_seed(0, images.device),
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        ):
            member(images.clone().requires_grad_())
        room = (
            torch.cuda.mem_get_info(images.device)[1]
            if images.device.type == "cuda"
            else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        )
    except (RuntimeError, AttributeError, ValueError):
        return []
    size = sum(size for where, size in kept.items() if where not in weights) / len(images)
    size *= len(population) * population.draws
    if size * chunk <= room:
        return []
    return [
        f"a gradient may take {size * chunk / 2**30:.0f} GiB of the machine's {room / 2**30:.0f}: "
        f"batch_size={max(1, int(room / size / 2))} takes half of it"
    ]
