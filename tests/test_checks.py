"""Named checks: what passes, what does not, and what is said."""

import math

import pytest

from physics_hybrid.checks import among, at_least, not_negative, one_of, positive, shares, within

PRECISIONS = ("float32", "bf16", "fp16")
HALF_OPEN = "[)"


@pytest.mark.parametrize(
    ("check", "good", "bad", "rule"),
    [
        (lambda x: at_least(1, "it", x), (1, 2.5), (0, -1, math.nan, None), "at least 1"),
        (lambda x: at_least(2, "it", x, null=True), (2, None), (1,), "null or at least 2"),
        (lambda x: not_negative("it", x), (0, 3), (-1, None, math.nan), ">= 0"),
        (lambda x: not_negative("it", x, "voxels"), (0,), (-1,), ">= 0 voxels"),
        (lambda x: not_negative("it", x, "(m)", null=True), (0, None), (-0.5,), "null or >= 0 (m)"),
        (lambda x: positive("it", x), (1e-9,), (0, -1.0, math.nan), "> 0"),
        (lambda x: within(0, 1, "it", x), (0, 1, 0.5), (-1, 2, math.nan), None),
        (lambda x: within(0, 0.5, "it", x, ends=HALF_OPEN), (0, 0.4), (0.5, -0.1), None),
        (lambda x: within(0, 1, "it", x, ends="()"), (0.5,), (0, 1.0), None),
        (
            lambda x: shares("it", x),
            ({"a": 0.5, "b": 0.5}, {"a": 0.1, "b": 0}),
            (
                {"a": 0.0},
                {"a": -0.1, "b": 1},
                {"a": 0.7, "b": 0.7},
                {"a": math.nan},
                {},
            ),
            "fractions >= 0 that sum to at most 1",
        ),
    ],
    ids=range(10),
)
def test_numbers(check, good, bad, rule):
    for value in good:
        check(value)
    for value in bad:
        with pytest.raises(ValueError, match="^it must ") as caught:
            check(value)
        assert rule is None or str(caught.value) == f"it must be {rule}; got {value}"


def test_an_interval_says_which_ends_belong_to_it():
    with pytest.raises(ValueError, match=r"^it must lie in \[0, 0.5\); got 0.5$"):
        within(0, 0.5, "it", 0.5, ends=HALF_OPEN)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda x: one_of(PRECISIONS, "it", x), "it must be float32, bf16 or fp16; got 'fp8'"),
        (lambda x: one_of((1, 3, 6, "fp16"), "it", x), "it must be 1, 3, 6 or fp16; got 'fp8'"),
        (
            lambda x: one_of(("a", "fp16"), "it", x, quoted=True),
            "it must be 'a' or 'fp16'; got 'fp8'",
        ),
        (lambda x: among(PRECISIONS, "it", x), "it must be one of float32, bf16, fp16; got 'fp8'"),
    ],
)
def test_words(check, message):
    check("fp16")
    with pytest.raises(ValueError, match="must be") as caught:
        check("fp8")
    assert str(caught.value) == message


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_a_seed_that_no_generator_takes_is_refused_by_name(seed):
    from physics_hybrid.evidence.bench import configuration
    from physics_hybrid.run.train import check_settings

    with pytest.raises(ValueError, match=rf"seed must lie in \[0, 4294967295\]; got {seed}"):
        check_settings(configuration([f"seed={seed}"]))
