"""Other papers' defenses: each trains, is random as it says, and draws what its paper says."""

import math
from dataclasses import replace

import pytest
import torch
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.attacks.draws import _draws_together
from randomized_defense_bench.benchmarks.case import build_case
from randomized_defense_bench.benchmarks.datasets import DATASETS, experiment, load
from randomized_defense_bench.benchmarks.evaluation import subject_of
from randomized_defense_bench.benchmarks.store import FileCheckpoint
from randomized_defense_bench.defenses import DEFENSES, Population, Recipe, Task, adversarial, rse
from randomized_defense_bench.defenses.adp import log_volume
from randomized_defense_bench.defenses.adv_bnn import GaussianWeight
from randomized_defense_bench.defenses.boosting import margin_cross_entropy
from randomized_defense_bench.defenses.ctrw import RandomWeight
from randomized_defense_bench.defenses.dverge import distilled
from randomized_defense_bench.defenses.gal import coherence
from randomized_defense_bench.defenses.hrs import CHANNELS, lower
from randomized_defense_bench.defenses.kwta import Winners
from randomized_defense_bench.defenses.l2p import LearnedNoise
from randomized_defense_bench.defenses.lwta import Competition
from randomized_defense_bench.defenses.pni import NoisyWeight
from randomized_defense_bench.defenses.replacing import replaced
from randomized_defense_bench.defenses.rna import RandomNorm
from randomized_defense_bench.defenses.rpf import RandomFilters
from randomized_defense_bench.defenses.sap import Pruned, keep_probability
from randomized_defense_bench.defenses.training import initialise
from randomized_defense_bench.defenses.wca import GaussianHead
from randomized_defense_bench.leaderboard.published import sources
from torch import nn

FIELD = [name for name in DEFENSES if DEFENSES[name].field]
DIGITS, LINF = DATASETS["digits"], ThreatModel("Linf", 0.25)
# It reaches the edge of its ball, so that learning to withstand it is learning.
ADVERSARY = {"eps": 0.1, "step_size": 0.05, "steps": 2}
RECIPE = Recipe(optimizer="adam", learning_rate=2e-3, epochs=3, batch_size=50)


@pytest.fixture(scope="module")
def digits():
    return load("digits", None, 400, 100)


@pytest.fixture(scope="module")
def trained(digits):
    """Populations by name, each trained once."""
    known = {}

    def population(name):
        if name not in known:
            defense = DEFENSES[name]
            build = defense.build or type(DIGITS).standard_network
            made = initialise(lambda: build(DIGITS), defense.members, seed=0)
            made.draws = min(defense.draws, 4)
            data = (digits.train_images, digits.train_labels)
            # Several machines train first what it names, and nothing else.
            there = {parent: population(parent) for parent in defense.starts_from}
            task = Task(
                images=data[0], labels=data[1], recipe=RECIPE, seed=0, load=there.__getitem__
            )
            # In so few steps networks that must be certified learn nothing.
            arguments = {"eps": 0.0} if name == "ibp" else ADVERSARY if defense.adversarial else {}
            defense.run_training(made, task, defense.parameters(arguments))
            known[name] = made.eval()
        return known[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adversarial, "WATCHED", 20)
        yield population


@pytest.mark.parametrize("name", FIELD)
def test_it_learns_and_is_as_random_as_it_says(name, trained, digits):
    population, images = trained(name), digits.test_images
    answers = []
    with torch.no_grad():
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            answers.append(population.logits(images))
    first, again, other = answers
    accuracy = (first.argmax(-1) == digits.test_labels).float().mean()
    assert accuracy > 0.25
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (not population.random)
    if population.random:
        assert _draws_together(population.submodels[0], images[None, :1])


def test_authors_attack_with_their_own_numbers(digits):
    members, defense = [nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))], DEFENSES["pni"]
    images, labels, numbers = digits.test_images, digits.test_labels, experiment("smoke", "digits")
    options = {"dataset": "digits", "name": "pni", "batch_size": 50}
    mine = subject_of(Population(members), images, labels, LINF, **options)
    theirs = replace(mine, claim=defense.claim)
    cases = [
        build_case(one, "pgd-eot", LINF, numbers, budget="smoke", seed=0) for one in (mine, theirs)
    ]
    steps = [(case.attack_parameters["steps"], case.attack_parameters["draws"]) for case in cases]
    assert steps == [(2, 2), (7, 1)]


def test_what_others_published_is_of_known_defenses_and_names_its_evaluator():
    claims = sources.rows("claims")
    assert {row["defense"] for row in claims} <= {*FIELD, "resize-pad"}
    assert all((row["adaptive"] is None) == (row["evaluated"] is None) for row in claims)
    assert all(row["attack"] for row in claims if row["claimed"] is not None)


def test_what_cannot_be_made_random_is_named():
    with pytest.raises(ValueError, match="Linear has no ReLU to make random"):
        replaced(nn.Linear(2, 2), nn.ReLU, Pruned)


def drawn_weights(kind, count=400):
    """Weights (count, out, in) of a 1 x 1 convolution that a kind of layer draws, and its own."""
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 1, bias=False)
    module = kind(layer)
    basis = torch.eye(8).view(8, 8, 1, 1)
    with torch.no_grad():
        drawn = torch.stack([module(basis)[:, :, 0, 0].T for _ in range(count)])
    return drawn, layer.weight.detach()[:, :, 0, 0]


@pytest.mark.parametrize(
    ("kind", "relative"), [(NoisyWeight, 0.25), (RandomWeight, 0.5), (GaussianWeight, None)]
)
def test_weights_are_drawn_around_their_means_with_the_spread_that_is_learned(kind, relative):
    drawn, weight = drawn_weights(kind)
    sigma = 0.05 if relative is None else relative * float(weight.std())
    assert torch.allclose(drawn.mean(0), weight, atol=5 * sigma / 20)
    assert float((drawn - weight).std()) == pytest.approx(sigma, rel=0.02)


def test_rpf_draws_three_quarters_of_the_filters():
    drawn, weight = drawn_weights(RandomFilters)
    assert torch.equal(drawn[:, 6:], weight[6:].expand(len(drawn), 2, 8))
    # 1 / kernel size.
    assert float(drawn[:, :6].std()) == pytest.approx(1, rel=0.02)


def test_wca_knows_the_variances_of_its_logits():
    torch.manual_seed(0)
    head = GaussianHead(nn.Linear(6, 3))
    with torch.no_grad():
        head.factor.normal_()
        logits = head(torch.zeros(40_000, 6))
        assert torch.allclose(logits.var(0), head.variances(), rtol=0.05)


def test_rse_adds_more_noise_to_the_image_than_inside():
    parts = [part for part in rse.build(DIGITS).modules() if isinstance(part, rse.NoisyInput)]
    assert [part.sigma for part in parts] == [0.2, 0.1, 0.1]
    noise = rse.NoisyInput(nn.Identity(), sigma=0.2)(torch.zeros(20_000))
    assert float(noise.std()) == pytest.approx(0.2, rel=0.05)


def test_sap_keeps_what_it_draws_and_the_expectation():
    torch.manual_seed(0)
    active = torch.tensor([[1.0, 3.0]])
    # Two draws of one and three quarters.
    share = torch.tensor([[1 - 0.75**2, 1 - 0.25**2]])
    assert torch.allclose(keep_probability(active), share)
    pruned = Pruned(nn.ReLU())(active.expand(20_000, 2))
    assert torch.allclose((pruned > 0).float().mean(0), share[0], atol=0.02)
    assert torch.allclose(pruned.mean(0), active[0], rtol=0.05)
    silent = torch.zeros(1, 2, requires_grad=True)
    Pruned(nn.ReLU())(silent).sum().backward()
    assert silent.grad.isfinite().all()


def test_bat_starts_from_the_adversarially_trained_network(trained):
    first, second = trained("bat").submodels
    alone = trained("single-adv").submodels[0]
    assert all(map(torch.equal, first.parameters(), alone.parameters()))
    assert not any(map(torch.equal, second.parameters(), alone.parameters()))
    assert DEFENSES["bat"].probabilities == (0.9, 0.1)


def test_hrs_has_every_path_through_its_channels_once(trained):
    members = trained("hrs").submodels
    halves = {}
    for member in members:
        below = lower(member)
        above = {name: w for name, w in member.state_dict().items() if name not in below}
        for half, state in (("lower", below), ("upper", above)):
            content = tuple(float(tensor.double().sum()) for tensor in state.values())
            halves.setdefault(half, []).append(content)
    assert len(members) == len(set(zip(*halves.values(), strict=True))) == CHANNELS**2
    assert [len(set(content)) for content in halves.values()] == [CHANNELS] * 2


@pytest.mark.parametrize(("name", "members"), [("hrs", CHANNELS**2), ("barre", 3), ("mrboost", 3)])
def test_what_trains_in_phases_goes_on_where_it_was_killed(name, members, digits, tmp_path):
    class KilledError(Exception):
        pass

    def run(folder=None, last=None):
        """The members, trained, if need be, up to a step of the second phase."""
        steps = []

        def observe(*_):
            steps.append(1)
            if len(steps) == last:
                raise KilledError

        data = {"images": digits.train_images[:100], "labels": digits.train_labels[:100]}
        checkpoint = FileCheckpoint(folder) if folder else None
        options = {"seed": 0, "load": None, "checkpoint": checkpoint, "observe": observe}
        made = initialise(DIGITS.standard_network, members, seed=0)
        arguments = ADVERSARY if DEFENSES[name].adversarial else {}
        DEFENSES[name].run_training(made, Task(recipe=RECIPE, **data, **options), arguments)
        return made.state_dict().values()

    # A phase has six steps.
    with pytest.raises(KilledError):
        run(tmp_path, last=10)
    assert all(map(torch.equal, run(tmp_path), run()))


def test_boosting_pushes_other_classes_evenly_away():
    logits, labels = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0])
    known = math.log(math.e + 2) - 1 + math.log(2 + math.exp(-1))
    assert float(margin_cross_entropy(logits, labels)) == pytest.approx(known)
    # Of equal sums of other classes' logits, the even one.
    uneven = torch.tensor([[1.0, 1.0, -1.0]])
    assert margin_cross_entropy(uneven, labels) > margin_cross_entropy(logits, labels)


def test_gal_measures_how_far_gradients_point_one_way():
    first, second, third = torch.eye(3)[:, None]
    apart = coherence([first, second, third])
    assert float(apart) == pytest.approx(math.log(3))
    assert float(coherence([first, first, third])) == pytest.approx(math.log(math.e + 2))


def test_dverge_shows_a_network_other_images_within_its_ball():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    images, others = torch.full((2, 1, 4, 4), 0.5), torch.rand(2, 1, 4, 4)
    seen = distilled(network, network[1], images, others, 0.07)
    with torch.no_grad():
        before, after = ((network(x) - network(others)).square().sum(1) for x in (images, seen))
    assert (after < before).all()
    assert float((seen - images).abs().max()) <= 0.07 + 1e-6
    assert not network[1]._forward_hooks


def test_l2p_adds_noise_of_its_own_to_each_channel():
    torch.manual_seed(0)
    layer = LearnedNoise(nn.BatchNorm2d(2)).eval()
    layer.theta.data = torch.tensor([0.5, -1.0])
    with torch.no_grad():
        noise = layer(torch.zeros(100, 2, 10, 10))
    assert noise.std((0, 2, 3)).tolist() == pytest.approx([0.5, 0.01], rel=0.05)


def test_rna_draws_each_kind_as_often():
    torch.manual_seed(0)
    norm = RandomNorm(nn.BatchNorm2d(4)).eval()
    features = torch.rand(1, 4, 3, 3)
    with torch.no_grad():
        answers = torch.stack([norm(features).flatten() for _ in range(400)])
    counts = answers.unique(dim=0, return_counts=True)[1]
    assert len(counts) == 4
    assert (counts - 100).abs().max() < 35


def test_lwta_lets_a_unit_pass_with_the_probability_of_a_softmax():
    torch.manual_seed(0)
    passed = Competition()(torch.tensor([[1 + math.log(3), 1.0]]).expand(10_000, 2))
    assert ((passed > 0).sum(1) == 1).all()
    assert float((passed[:, 0] > 0).float().mean()) == pytest.approx(0.75, abs=0.02)


def test_kwta_lets_a_tenth_pass():
    features = torch.arange(20.0).view(1, 5, 2, 2)
    assert Winners()(features).flatten().tolist() == [0.0] * 18 + [18.0, 19.0]


def test_adp_measures_the_volume_of_the_wrong_classes():
    apart = torch.tensor([[[0.5, 0.5, 0.0]], [[0.5, 0.0, 0.5]]])
    labels = torch.tensor([0])
    assert float(log_volume(apart, labels)) == pytest.approx(0, abs=1e-4)
    assert float(log_volume(apart[:1].expand(2, 1, 3), labels)) < -10


def test_adv_bnn_measures_the_divergence_from_its_prior():
    layer = GaussianWeight(nn.Linear(3, 2))
    nn.init.constant_(layer.layer.weight, 0.1)
    nn.init.constant_(layer.log_sigma, math.log(0.1))
    # Half the square of the mean, in standard deviations.
    assert float(layer.divergence()) == pytest.approx(6 * 0.5)
