import re
from pathlib import Path

import numpy as np
import samples
from samples import gated, record

from leaderboard import baselines
from leaderboard.evidence import KINDS
from leaderboard.paper import FIRST_LINE, render_paper, result

GOLDEN = Path(__file__).parent / "golden_paper.md"
README_GOLDEN = Path(__file__).parent / "golden_result.md"


def measured_by_hand():
    many = {"images": 200, "budget": "paper"}
    plain = [
        *gated("ulm", 3, submodels=10, **many),
        *gated("clm", 5, submodels=10, **many),
    ]
    trained = [
        *gated("ulm-adv", 150, submodels=2, **many),
        *gated("clm-adv", 151, submodels=2, **many),
        *gated("single-adv", 149, submodels=1, **many),
    ]
    curve = [
        record(right, defense=name, attack="fgsm", eps=eps, headline=False, submodels=10, **many)
        for name, right in (("ulm", 9), ("clm", 80))
        for eps in (0.35, 0.5)
    ]
    return [*plain, *trained, *curve]


def seen_by_hand():
    return [seen(kind) for kind in KINDS]


def seen(kind, **changes):
    weights = {name: samples.weights_sha256(name, 10) for name in ("ulm", "clm")}
    return samples.evidence(kind, budget="paper", populations=weights, **changes)


def report(records=None, evidence=None):
    return render_paper(
        measured_by_hand() if records is None else records,
        seen_by_hand() if evidence is None else evidence,
        baselines.load(),
    )


def test_the_report_is_what_it_was():
    """After a wanted change, `python tests/leaderboard/test_paper.py` writes it anew: read it."""
    assert report() == GOLDEN.read_text()
    assert result(measured_by_hand(), seen_by_hand()) == README_GOLDEN.read_text()


def test_the_report_depends_only_on_what_was_measured():
    assert report().splitlines()[0] == FIRST_LINE
    backwards = report(measured_by_hand()[::-1], seen_by_hand()[::-1])
    assert backwards == report()


def test_without_measurements_every_number_of_the_paper_is_there_and_says_why_ours_is_not():
    text = report([], [])
    assert text.count("not comparable (not measured)") == 68
    assert "0 reproduced" in text
    assert result([], []) == "Nothing has been measured yet.\n"


def test_variants_stand_beside_the_paper_and_near_ones_are_named():
    text = report().split("How its attacks may have been run")[1].split("## ")[0]
    # 30 and 50 against 35.94 and 54.29; 40 and 60 against 22.80 and 45.43.
    assert "both populations: none." in text
    assert "-5.9" in text
    assert "+14.6" in text
    arrays = {
        f"{name} s": np.full((2, 10), value, np.float32)
        for name, value in (("ulm", 0.36), ("clm", 0.54))
    }
    text = report(evidence=[seen("variants", arrays=arrays)])
    assert "both populations: `pgd` as released." in text


def test_the_result_is_one_table_one_plot_and_three_sentences():
    text = result(measured_by_hand(), seen_by_hand())
    verdict = text.split("\n\n")[0]
    assert len(re.findall(r"\.(?: |$)", verdict)) == 3
    assert text.count("![") == 1
    assert text.count("| defense ") == 1
    assert "the gain is gone" in verdict


def test_a_gain_that_remains_is_said_to_remain():
    many = {"images": 200, "budget": "paper"}
    text = result([*gated("ulm", 3, **many), *gated("clm", 90, **many)], [])
    assert "the gain remains" in text


def test_too_few_images_decide_nothing():
    text = result([*gated("ulm", 3), *gated("clm", 7)], [])
    assert "too few images to tell whether a gain remains" in text


def test_adversarial_training_that_keeps_nothing_is_not_praised():
    names = {"ulm-adv": 2, "clm-adv": 2, "single-adv": 1}
    text = result([r for name, n in names.items() for r in gated(name, 0, submodels=n)], [])
    assert "Adversarial training does not help either" in text


def test_a_verdict_needs_the_paper_s_budget():
    quick = [*gated("ulm", 3, images=200), *gated("clm", 5, images=200)]
    text = report(quick, [])
    assert "**not judged: quick budget**" in text
    assert "does not hold" not in text


def test_every_claim_links_to_sections_that_exist():
    text = report()
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
    links = set(re.findall(r"\]\(#([^)]*)\)", text))
    assert links
    assert links <= anchors


if __name__ == "__main__":
    GOLDEN.write_text(report())
    README_GOLDEN.write_text(result(measured_by_hand(), seen_by_hand()))
