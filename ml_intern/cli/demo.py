"""A whole errand without a network, a key or a model: local services, a real data set, recorded model turns.

Only the model's turns are recorded. They come from a run in which each was answered live through the same endpoint.
Everything that they cause happens now, on this machine: searches, training, evaluation, the question before publishing,
the push, the upload of the trace.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import random
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import InternError
from ..events import Event, Warned
from .run import Order, run_with

TASK = (
    "Find an approach for small-image classification, find a data set, hold its test split out, train a baseline and "
    "something better as training jobs on this machine (a smoke run first), have both evaluated on the held-out rows by "
    "evaluate_model, and publish the better one with a model card. Publish it only if it beats the baseline by more than "
    "chance and the evaluation found no problem: let the code decide, and take every figure in the card and the report from "
    "variables. If publishing is refused, say by whom and why. No step may take more than about twenty seconds on two CPU "
    "cores."
)

NEEDED = ("sklearn", "skops", "matplotlib", "starlette", "uvicorn")
"""Beyond the base installation: the extra `demo`."""

USER, TOKEN = "demo-user", "hf_demo_local_token_of_this_machine"

DIGITS_CARD = """---
license: cc-by-4.0
task_categories: [image-classification]
size_categories: [1K<n<10K]
tags: [digits, small-images, tabular]
pretty_name: Handwritten digits, 8x8
configs:
- config_name: default
  data_files:
  - {split: train, path: train.csv}
  - {split: test, path: test.csv}
---
# Handwritten digits, 8x8

1,797 grey images of handwritten digits, 8 by 8 pixels, 10 classes: the test part of the UCI data set "Optical
Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998), as scikit-learn ships it. One row an image:
`pixel_00` to `pixel_63` row by row, whole numbers from 0 to 16, and `label`. `test.csv` is a random fifth, stratified.
"""

TABLE_CARD = """---
license: cc-by-4.0
task_categories: [tabular-classification]
size_categories: [n<1K]
tags: [tabular]
---
# {title}

{rows} rows, {columns} columns and `label`. From the UCI repository, as scikit-learn ships it.
"""


@dataclass(frozen=True)
class Report:
    """What came out, read from the Hub and the trace, not from the recording."""

    state: str
    published: bool
    metric: str | None
    baseline: float | None
    candidate: float | None
    interval: list[float] | None
    p_value: float | None
    held_out: int | None
    runs: int
    model: str | None
    files: str | None
    trace: str
    trace_dataset: str | None
    differs: tuple[str, ...]
    seconds: float
    recorded: bool


def run(*, live: bool, yes: bool, shuffle_labels: bool, folder: Path | None, as_json: bool) -> int:
    """Runs the demo.

    Args:
        live (`bool`): Ask the model of `LLM_ENDPOINT` instead of the recording.
        yes (`bool`): Answer the prompt by itself. So it does, and says so, where there is no terminal.
        shuffle_labels (`bool`): Shuffle the labels of the training data first: accuracy drops to chance, nothing is pushed.
        folder (`Path`, *optional*): Where everything is kept; a new folder in it each time. Defaults to the user's data.
        as_json (`bool`): Events and report as JSON lines.

    Returns:
        `int`: 0 when a model was published, else the exit code of the run, or 1.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InternError(
            "The demo needs packages that are not here", ", ".join(missing), "pip install 'smolagents-ml-intern[demo]'"
        )
    started = time.monotonic()
    say: Callable[[str], None] = (lambda text: None) if as_json else (lambda text: print(text, flush=True))
    if not as_json:
        print("ML Intern demo. Hub and arXiv are services on this machine; the data set and the training are real.")
        print(
            "The model's turns are " + ("live." if live else "RECORDED (from a live run); all they cause happens now.")
        )
        if not yes and not sys.stdin.isatty():
            print("No terminal to ask at: the demo answers its own question before publishing with yes.")
    yes = yes or not sys.stdin.isatty()
    base = folder or Path(os.environ.get("ML_INTERN_HOME") or _data_dir()) / "demo"
    where = base.expanduser().absolute() / time.strftime("run-%Y%m%d-%H%M%S")
    number = 1
    while where.exists():
        number += 1
        where = where.with_name(f"{where.name.split('.')[0]}.{number}")
    try:
        where.mkdir(parents=True)
    except OSError as error:
        raise InternError(
            f"Cannot write to {where}", error.strerror or "", "Choose another place: --data DIR."
        ) from None
    differs: list[str] = []
    with _services(where, live, shuffle_labels, differs, say) as (hub, tell):
        order = Order(task=TASK, model=None if live else "vllm/recorded", home=where / "home", yes=yes, json=as_json)
        code = run_with(order, tell)
        report = _report(hub, where, code, tuple(differs), time.monotonic() - started, live)
    if as_json:
        print(json.dumps({"event": "demo_report", **asdict(report)}))
    else:
        _print(report)
    return 0 if report.published else code or 1


def _data_dir() -> str:
    import platformdirs

    return platformdirs.user_data_dir("ml-intern", appauthor=False)


@contextlib.contextmanager
def _services(
    where: Path, live: bool, shuffle_labels: bool, differs: list[str], say: Callable[[str], None]
) -> Generator[tuple[Any, Callable[[Callable[[Event], None]], None]]]:
    """The local Hub, arXiv and model, and the environment that leads every client to them."""
    from ..testing import LocalArxiv, LocalHub, LocalLLM, recorded

    listeners: list[Callable[[Event], None]] = []

    def differ(turn: int, was: str, now: str) -> None:
        text = f"Before turn {turn} the results differ from the recording: {now}"
        differs.append(text)
        for listener in listeners:
            listener(Warned(text=text))

    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(LocalHub(where / "hub", {TOKEN: USER}))
        say("Seeding the local Hub and the paper service ...")
        for name, files in datasets(shuffle_labels).items():
            hub.seed(f"sklearn-data/{name}", "dataset", files, downloads=120 if name == "digits-8x8" else 40)
        arxiv = stack.enter_context(LocalArxiv(where / "arxiv"))
        environment = {**hub.environment(), "ARXIV_API_URL": f"{arxiv.url}/api/query", "ARXIV_BASE_URL": arxiv.url}
        if not live:
            answer = recorded(_recording(), differ)
            environment["VLLM_BASE_URL"] = stack.enter_context(LocalLLM(answer)).url
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            yield hub, listeners.append
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _recording() -> Path:
    return Path(str(resources.files("ml_intern.testing") / "recordings" / "demo.jsonl"))


def datasets(shuffle_labels: bool = False) -> dict[str, dict[str, bytes]]:
    """The data sets that the local Hub is seeded with, name to files, from those that scikit-learn ships."""
    from sklearn.datasets import load_breast_cancer, load_digits, load_wine
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    names = [f"pixel_{i:02d}" for i in range(64)]
    train_x, test_x, train_y, test_y = train_test_split(
        digits.data.astype(int), digits.target, test_size=0.2, stratify=digits.target, random_state=0
    )
    train_y = list(train_y)
    if shuffle_labels:
        random.Random(0).shuffle(train_y)
    found = {
        "digits-8x8": {
            "README.md": DIGITS_CARD.encode(),
            "train.csv": _csv(names, train_x, train_y),
            "test.csv": _csv(names, test_x, test_y),
        }
    }
    for name, title, table in (
        ("wine", "Wine recognition", load_wine()),
        ("breast-cancer", "Breast cancer", load_breast_cancer()),
    ):
        columns = [str(column).replace(" ", "_") for column in table.feature_names]
        card = TABLE_CARD.format(title=title, rows=len(table.data), columns=len(columns))
        found[name] = {"README.md": card.encode(), "train.csv": _csv(columns, table.data, table.target)}
    return found


def _csv(columns: list[str], rows: Any, labels: Any) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "label"])
    writer.writerows([*(value.item() for value in row), int(label)] for row, label in zip(rows, labels, strict=True))
    return text.getvalue().encode()


def _report(hub: Any, where: Path, code: int, differs: tuple[str, ...], seconds: float, live: bool) -> Report:
    from ..records import EVALUATION, EXPERIMENT
    from ..trace import last_end, restore

    trace = max((where / "home" / "sessions").glob("*.jsonl"), key=lambda path: path.stat().st_mtime, default=None)
    if trace is None:
        raise InternError("The demo's session left no trace", f"exit code {code}", f"Look into {where}.")
    end = last_end(trace)
    kept = restore(trace).records
    done = [data for kind, data in kept if kind == EXPERIMENT and data.get("state") == "done"]
    runs = {data["id"] for data in done if not data["config"].get("smoke")}
    evaluation = next((data for kind, data in reversed(kept) if kind == EVALUATION), None)
    baseline, candidate, difference = (
        (evaluation or {}).get(name, {}) for name in ("baseline", "candidate", "difference")
    )
    from huggingface_hub import HfApi, snapshot_download

    api = HfApi(endpoint=hub.url, token=TOKEN)
    models = [model.id for model in api.list_models(author=USER)]
    files = None
    if models:
        files = str(where / "published" / models[0].split("/")[1])
        snapshot_download(models[0], local_dir=files, endpoint=hub.url, token=TOKEN)
    traces = [info.id for info in api.list_datasets(author=USER)]
    return Report(
        state=end.state if end else "cut off",
        published=bool(models),
        metric=evaluation["metric"] if evaluation else None,
        baseline=baseline.get("value"),
        candidate=candidate.get("value"),
        interval=candidate.get("interval"),
        p_value=difference.get("p_value"),
        held_out=evaluation["n"] if evaluation else None,
        runs=len(runs),
        model=models[0] if models else None,
        files=files,
        trace=str(trace),
        trace_dataset=traces[0] if traces else None,
        differs=differs,
        seconds=round(seconds, 1),
        recorded=not live,
    )


def _print(report: Report) -> None:
    rows = [
        ("Run", f"{report.state} in {report.seconds:.0f} s" + (", model turns recorded" if report.recorded else ""))
    ]
    if isinstance(report.baseline, int | float) and isinstance(report.candidate, int | float):
        on = f" on {report.held_out} held-out examples" if report.held_out else ""
        low, high = report.interval or (float("nan"), float("nan"))
        rows.append(("Training", f"{report.runs} runs in jobs, smoke runs first" if report.runs else "none"))
        rows.append(("Baseline", f"{report.metric} {report.baseline:.4f}{on}, computed just now by the host"))
        rows.append(
            (
                "Model",
                f"{report.metric} {report.candidate:.4f} (95 %: {low:.4f} to {high:.4f}), p = {report.p_value:.2g}",
            )
        )
    if report.published:
        rows.append(("Published", f"{report.model}, private, on the local Hub"))
        files = Path(report.files or "")
        rows.append(("Files", str(files)))
        rows.append(("Card", str(files / "README.md")))
        rows += [("Plot", str(path)) for path in sorted(files.rglob("*.png"))]
    else:
        why = (
            "the push was refused" if report.state == "denied" else "no model was shown to be better than the baseline"
        )
        rows.append(("Published", f"nothing: {why}"))
    rows.append(("Trace", report.trace))
    if report.trace_dataset:
        rows.append(("Shared as", f"{report.trace_dataset}, a private dataset on the local Hub"))
    rows.append(
        (
            "Recording",
            "results as recorded" if not report.differs else f"{len(report.differs)} results differ, see above",
        )
    )
    print("\nDemo report")
    for name, text in rows if report.recorded else rows[:-1]:
        print(f"  {name:<10} {text}")
    print("\nNext: `python -m ml_intern doctor` says what works here. Then, with a model of yours:")
    print('  LLM_ENDPOINT=ollama/qwen2.5-coder:32b python -m ml_intern "find a dataset and train a classifier"')
