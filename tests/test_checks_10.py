"""The checks of lesson 10 accept right answers and name what is wrong with others."""

from math import comb

import numpy as np
import pytest
from scipy import stats

from blip3o_mini.checks import nb10_evaluate as check
from blip3o_mini.checks.exercise import Exercise
from blip3o_mini.evaluate import geneval, score
from blip3o_mini.world import render, sample_scene
from blip3o_mini.world.parse import read
from blip3o_mini.world.scene import relation

EXERCISES = {
    e.name: e for e in (check.passes, check.wilson, check.bootstrap, check.sign_test, check.corrected)
}  # fmt: skip
WORDS = {"left of": "left", "right of": "right", "above": "above", "below": "below"}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_the_right_answer_passes(exercise, capsys):
    assert exercise(exercise.right) is True
    assert capsys.readouterr().out.startswith(f"✔ {exercise.number} {exercise.name} — ")


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_every_slip_is_named_by_its_own_sentence(exercise: Exercise, capsys):
    assert len(exercise.slips) >= 3 and len({slip.says for slip in exercise.slips}) == len(exercise.slips)
    for slip in exercise.slips:
        assert exercise(slip.wrong) is False
        assert capsys.readouterr().out.startswith(f"✘ {exercise.number} {exercise.name} — {slip.says}")


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_what_is_not_written_yet_is_no_mistake(exercise, capsys):
    def empty(*case):
        raise NotImplementedError

    for learner in (empty, lambda *case: None):
        assert exercise(learner) is False
        assert capsys.readouterr().out.startswith(f"… {exercise.number} {exercise.name} — not yet")


# Right answers written in another way than the check's own.


def passed_fact_by_fact(facts, objects):
    def fits(wanted):
        return [o for o in objects if o.shape == wanted["class"] and wanted.get("color", o.colour) == o.colour]

    held = [len(fits(wanted)) >= wanted["count"] for wanted in facts["include"]]
    for wanted in facts["include"]:
        if "position" in wanted:
            name, k = wanted["position"]
            held.append(any(WORDS[name] in relation(a, b) for a in fits(wanted) for b in fits(facts["include"][k])))
    most = {one["class"]: one["count"] - 1 for one in facts.get("exclude", [])}
    return all(held) and all(len([o for o in objects if o.shape == shape]) <= n for shape, n in most.items())


def wilson_by_scipy(mean, n):
    """scipy's z has more digits than 1.96, so this agrees only nearly."""
    found = stats.binomtest(round(mean * n), n).proportion_ci(method="wilson")
    return found.low, found.high


def wilson_in_one_line(mean, n):
    z = 1.96
    root = (mean * (1 - mean) * n + z * z / 4) ** 0.5
    return tuple((mean * n + z * z / 2 + sign * z * root) / (n + z * z) for sign in (-1, 1))


def bootstrapped_in_a_loop(scores, drawn):
    means = sorted(sum(scores[k] for k in row) / len(row) for row in drawn)
    return np.percentile(means, 2.5), np.percentile(means, 97.5)


def scipys_sign_test(a, b):
    wins, losses = (np.sum(np.sign(np.subtract(b, a)) == sign) for sign in (1, -1))
    return stats.binomtest(int(wins), int(wins + losses)).pvalue if wins + losses else 1.0


def corrected_by_clip(observed, hits, alarms):
    return np.clip((observed - alarms) / (hits - alarms), 0, 1)


@pytest.mark.parametrize(
    "name, learner",
    [("passes", passed_fact_by_fact), ("wilson", wilson_in_one_line), ("bootstrap", bootstrapped_in_a_loop),
     ("sign_test", scipys_sign_test), ("corrected", corrected_by_clip)],
)  # fmt: skip
def test_other_right_answers_pass(name, learner, capsys):
    assert EXERCISES[name](learner) is True, capsys.readouterr().out


# Wrong answers as a student would write them, each with what the report must name.


def passed_by_words(facts, objects):
    shapes, colours = [o.shape for o in objects], [o.colour for o in objects]
    if not all(shapes.count(w["class"]) >= w["count"] for w in facts["include"]):
        return False
    if not all(w.get("color") in (None, *colours) for w in facts["include"]):
        return False
    for w in facts["include"]:
        if "position" in w:
            k = w["position"][1]
            first, last = ([o for o in objects if o.shape == x["class"]] for x in (w, facts["include"][k]))
            if not any(WORDS[w["position"][0]] in relation(a, b) for a in first for b in last):
                return False
    return not any(shapes.count(one["class"]) >= one["count"] for one in facts.get("exclude", []))


def passed_without_exclude(facts, objects):
    return passed_fact_by_fact({**facts, "exclude": []}, objects)


def passed_turned(facts, objects):
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    include = [
        {**w, "position": [opposite[w["position"][0]], w["position"][1]]} if "position" in w else w
        for w in facts["include"]
    ]
    return passed_fact_by_fact({**facts, "include": include}, objects)


def passed_without_places(facts, objects):
    include = [{k: v for k, v in w.items() if k != "position"} for w in facts["include"]]
    return passed_fact_by_fact({**facts, "include": include}, objects)


def textbook(mean, n):
    arm = 1.96 * np.sqrt(mean * (1 - mean) / n)
    return mean - arm, mean + arm


def wilson_undivided(mean, n):
    z = 1.96
    middle, arm = mean + z**2 / 2 / n, z * np.sqrt(mean * (1 - mean) / n + z**2 / 4 / n**2)
    return middle - arm, middle + arm


def sign_tested(a, b, both=2, every=False):
    wins, losses = np.sum(np.array(b) > np.array(a)), np.sum(np.array(b) < np.array(a))
    n = len(a) if every else int(wins + losses)
    return min(1.0, both * sum(comb(n, k) for k in range(int(max(wins, losses)), n + 1)) / 2**n)


PLANTED = [
    ("passes", passed_by_words, "looked for apart"),
    ("passes", passed_without_exclude, "never look at `exclude`"),
    ("passes", passed_turned, "wrong way round"),
    ("passes", passed_without_places, "never look at `position`"),
    ("wilson", textbook, "textbook interval, mean"),
    ("wilson", lambda mean, n: tuple(np.clip(textbook(mean, n), 0, 1)), "cut at 0 and 1"),
    ("wilson", wilson_undivided, "divide by 1 + z²/n"),
    ("wilson", lambda mean, n: tuple(x * n for x in wilson_in_one_line(mean, n)), "first difference"),
    ("bootstrap", lambda scores, drawn: tuple(np.quantile(scores, [0.025, 0.975])), "single scores"),
    ("bootstrap", lambda scores, drawn: tuple(np.quantile(scores[drawn].mean(0), [0.025, 0.975])), "wrong axis"),
    ("bootstrap", lambda scores, drawn: tuple(np.quantile(scores[drawn].mean(1), [0.05, 0.95])), "90 %"),
    ("sign_test", lambda a, b: sign_tested(a, b, both=1), "one side"),
    ("sign_test", lambda a, b: sign_tested(a, b, every=True), "leave them out"),
    ("sign_test", lambda a, b: sign_tested(b, a) if np.mean(b) >= np.mean(a) else 1.0, "expected"),
    ("corrected", lambda o, h, f: o * h + (1 - o) * f, "way back"),
    ("corrected", lambda o, h, f: min(o / h, 1), "too"),
    ("corrected", lambda o, h, f: (o - f) / (h - f), "between 0 and 1"),
]


@pytest.mark.parametrize("name, learner, named", PLANTED, ids=[f"{name}: {named}" for name, _, named in PLANTED])
def test_planted_mistakes_are_named(name, learner, named, capsys):
    assert EXERCISES[name](learner) is False
    report = capsys.readouterr().out
    assert report.startswith("✘") and named in report


def test_the_check_of_passes_agrees_with_the_package_on_pictures():
    """What the exercise asks for is what the suite judges, on pictures of the world."""
    rng = np.random.default_rng(0)
    asked = geneval.prompts(60, rng, is_heldout=False) + geneval.prompts(60, rng, is_heldout=True)
    readings = [read(image) for image in render([sample_scene(rng, allow_heldout=True) for _ in range(60)])]
    judged = [(facts, reading) for facts in asked for reading in readings]
    mine = [passed_fact_by_fact(facts, list(reading.objects)) for facts, reading in judged]
    assert mine == [not geneval.failures(facts, reading) for facts, reading in judged]
    assert 0 < np.mean(mine) < 0.5


def test_the_checks_of_the_intervals_agree_with_scipy_and_the_package():
    for mean, n in ((0.5, 100), (0.9, 50), (0.0, 10)):
        np.testing.assert_allclose(check.wilson.right(mean, n), wilson_by_scipy(mean, n), atol=1e-4)
    scores = np.random.default_rng(0).beta(4, 1, 50)
    drawn = np.random.default_rng(0).integers(50, size=(score.BOOTSTRAPS, 50))
    assert check.bootstrap.right(scores, drawn) == score.bootstrap(scores)
