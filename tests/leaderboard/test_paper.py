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
    many = {"images": 200, "submodels": 2, "budget": "paper"}
    plain = [*gated("ulm", 3, **many), *gated("clm", 5, **many)]
    trained = [
        *gated("ulm-adv", 150, **many),
        *gated("clm-adv", 151, **many),
        *gated("single-adv", 149, **{**many, "submodels": 1}),
    ]
    curve = [
        record(right, defense=name, attack="fgsm", eps=eps, headline=False, **many)
        for name, right in (("ulm", 9), ("clm", 80))
        for eps in (0.35, 0.5)
    ]
    return [*plain, *trained, *curve]


def seen_by_hand():
    return [samples.evidence(kind, budget="paper") for kind in KINDS]


def report(records=None, seen=None):
    return render_paper(
        measured_by_hand() if records is None else records,
        seen_by_hand() if seen is None else seen,
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
    seen = [samples.evidence("variants", budget="paper", arrays=arrays)]
    assert "both populations: `pgd` as released." in report(seen=seen)


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
    assert "a gain remains" in text


if __name__ == "__main__":
    GOLDEN.write_text(report())
    README_GOLDEN.write_text(result(measured_by_hand(), seen_by_hand()))
