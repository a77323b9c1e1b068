"""Curves of a run, as text and as a picture."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_intern.curves import panels, picture, sketch


def a_run(steps=200):
    draw = random.Random(1)
    for step in range(1, steps + 1):
        point = {
            "step": step,
            "time": step,
            "loss": 2 / (1 + step / 40) + draw.gauss(0, 0.05),
            "learning_rate": 1e-4,
            "grad_norm": 1.0,
            "samples_per_second": 8.0,
            "tokens_per_second": 4096.0,
            "memory_gb": 1.5,
        }
        point |= (
            {"eval_loss": 2.2 / (1 + step / 40), "eval_accuracy": step / steps, "eval_runtime": 2.0}
            if step % 25 == 0
            else {}
        )
        yield point


def test_text_shows_each_curve_with_where_it_began_and_where_it_is():
    text = sketch(list(a_run()), width=50, height=6)
    lines = text.split("\n")
    assert "● loss (now" in lines[0] and "○ eval_loss (now" in lines[0]
    assert lines[1].count("●") >= 1 and lines[6].count("●") > 5  # from high on the left to low on the right
    assert lines[1].index("●") < lines[6].index("●")
    assert "step 1" in lines[8] and lines[8].endswith("200")
    assert any(line.startswith("eval_accuracy: 0.125 ▁") and line.endswith("█ 1") for line in lines)
    for begins in ("learning_rate: 0.0001", "samples_per_second: 8 ", "tokens_per_second: 4096 ", "memory_gb: 1.5 "):
        assert any(line.startswith(begins) for line in lines), begins
    assert max(map(len, lines)) < 80 and "eval_runtime" not in text


@pytest.mark.long
def test_a_picture_is_drawn():
    pytest.importorskip("matplotlib")
    data = picture(list(a_run()), "runs/a $name")
    assert data is not None and data.startswith(b"\x89PNG") and len(data) > 10_000
    titles = [
        "loss",
        "eval_accuracy",
        "learning rate",
        "gradient norm",
        "samples a second",
        "tokens a second",
        "memory, GB",
    ]
    assert [title for title, _ in panels(list(a_run()))] == titles  # each with a scale of its own, but the losses


def test_of_many_metrics_the_plain_ones_come_first_each_with_what_training_says_of_it():
    """As GRPO logs them: two dozen, most of which never change."""
    made = [{"step": step, "loss": 0.1, "reward": step / 10, "eval_reward": step / 11} for step in range(1, 6)]
    for at, point in enumerate(made):
        point |= {f"eval_clip/{n}": 0.0 for n in range(20)} | {f"eval_part/{n}": float(at) for n in range(20)}
    shown = panels(made)
    assert [title for title, _ in shown] == [
        "loss",
        "eval_reward",
        *(f"eval_part/{n}" for n in (0, 1, 10, 11, 12, 13, 14)),
    ]
    assert [name for name, _ in shown[1][1]] == ["eval_reward", "reward"]


def test_nothing_to_show_is_nothing():
    assert sketch([]) == "" and picture([]) is None
    assert picture([{"step": 1, "loss": math.nan}]) is None


@given(
    st.lists(
        st.fixed_dictionaries(
            {"step": st.integers(0, 10**7)},
            optional={
                name: st.one_of(st.floats(), st.text(max_size=3))
                for name in ("loss", "eval_loss", "eval_f1", "memory_gb")
            },
        ),
        max_size=30,
    )
)
def test_any_numbers_can_be_drawn(points):
    text = sketch(points, width=30, height=4)
    assert all(len(line) <= 90 for line in text.split("\n"))
