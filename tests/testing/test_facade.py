"""What `ml_intern.testing` offers, and what it costs to import."""

import subprocess
import sys

import ml_intern.testing


def test_everything_it_names_is_there():
    for name in ml_intern.testing.__all__:
        assert getattr(ml_intern.testing, name).__name__ == name
        assert name in dir(ml_intern.testing)


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, ml_intern.testing; print([m for m in ('smolagents', 'starlette', 'litellm') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
