"""The README's commands and examples, run as they stand there, against local services."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ml_intern.testing import LocalArxiv, LocalHub, LocalLLM, scripted

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, re.S)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line.strip()]
EXAMPLES = [block for kind, block in BLOCKS if kind == "python"]

# Each example with what the model says to it and what has to be on the screen.
PLAYED = {
    "MLIntern(": (
        ["<code>\npapers = arxiv_search(query='low-rank')\nfinal_answer(papers['total'] > 0)\n</code>"],
        "True success",
    ),
    "InternAgent(": (["<code>\nfinal_answer(word_count('to be or not to be'))\n</code>"], "6"),
    "CodeAgent(": (["<code>\nfinal_answer(arxiv_search(ids=['2106.09685'])['papers'][0]['title'])\n</code>"], "LoRA"),
}


@pytest.fixture
def environment(tmp_path: Path):
    with LocalHub(tmp_path / "hub") as hub, LocalArxiv() as arxiv:
        yield {
            **os.environ,
            **hub.environment(),
            "ARXIV_API_URL": f"{arxiv.url}/api/query",
            "ML_INTERN_HOME": str(tmp_path / "home"),
        }


def test_it_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) < 200
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_command_is_one_that_a_test_runs() -> None:
    """A command that is added to the README has to be added here, with how it is run."""
    assert set(COMMANDS) == {
        "make demo",  # tests/cli/test_demo.py runs what it runs
        "make test",  # this
        "pip install smolagents-ml-intern",  # tests/quality/wheel.py installs the wheel
        "export LLM_ENDPOINT=ollama/qwen2.5-coder:32b",  # below
        'python -m ml_intern "find a small text classification data set and train a classifier on it"',  # below
        "python -m ml_intern doctor",  # below
        "python -m ml_intern",  # tests/cli/test_chat.py
        "python -m ml_intern sessions",  # tests/gateways/test_control.py
        "python -m ml_intern trace show ID",  # tests/cli/test_trace.py
        "python -m ml_intern trace decisions ID",  # tests/cli/test_trace.py
    }


def test_the_make_targets_are_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`?make ([a-z]+)", README.replace("\n", " ")))
    assert named <= targets and {"demo", "test", "check", "bench", "conformance", "soak"} <= targets


def test_doctor(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ml_intern", "doctor"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "bubblewrap" in done.stdout or "landlock" in done.stdout.lower()


TASK = next(line for line in COMMANDS if line.startswith("python -m ml_intern") and '"' in line)
FINDS = "<code>\nfound = hub_search_datasets(query='text')\nfinal_answer(f\"found {len(found['datasets'])}\")\n</code>"
RUN_ALL = """
import json, os, runpy, sys, traceback
for number, words in enumerate(json.loads(sys.argv[1])):
    print("=====", number, flush=True)
    sys.argv = words
    try:
        if words[0] == "-m":  # as `python -m` does it
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        print("ended with", end.code)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
    sys.stdout.flush()
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each example shows, and the command with the task: one after the other in a process, as each would load litellm."""
    folder = tmp_path_factory.mktemp("examples")
    scripts = [next(value for key, value in PLAYED.items() if key in example)[0] for example in EXAMPLES]
    with (
        LocalHub(folder / "hub") as hub,
        LocalArxiv() as arxiv,
        LocalLLM(scripted([*(said for script in scripts for said in script), FINDS])) as llm,
    ):
        paths = [folder / f"{number}.py" for number in range(len(EXAMPLES))]
        for path, example in zip(paths, EXAMPLES, strict=True):
            # The examples name a model that is not here: the same client, led to the local endpoint.
            path.write_text(
                example.replace('model_id="ollama_chat/', f'api_base="{llm.url}/v1", model_id="hosted_vllm/')
            )
        environment = {
            **os.environ, **hub.environment(), "ARXIV_API_URL": f"{arxiv.url}/api/query", "ML_INTERN_SHARE_TRACES": "0",
            "LLM_ENDPOINT": "vllm/qwen2.5-coder:32b", "VLLM_BASE_URL": llm.url, "ML_INTERN_HOME": str(folder / "home"),
        }  # fmt: skip
        orders = [*([str(path)] for path in paths), shlex.split(TASK)[1:]]
        words = [sys.executable, "-c", RUN_ALL, json.dumps(orders)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = re.split(r"^===== .*\n", done.stdout, flags=re.M)[1:]
    return dict(zip([*EXAMPLES, TASK], parts, strict=True))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: re.findall(r"(\w+)\(", text)[0])
def test_every_example_runs(example: str, shown: dict[str, str]) -> None:
    assert next(value for key, value in PLAYED.items() if key in example)[1] in shown[example]
    assert "Traceback" not in shown[example]


def test_the_command_line_runs_the_readmes_task(shown: dict[str, str]) -> None:
    assert "found 0" in shown[TASK] and "ended with 0" in shown[TASK]
