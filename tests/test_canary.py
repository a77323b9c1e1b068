"""Sixty secrets in six encodings go in wherever they can; none comes out.

What must never happen: a secret that this process knows is found on disk, on the wire of a service, in an event, or on the
terminal. What goes out on purpose is the token in the `Authorization` header of the services it is for. What code itself
writes in its own workspace is its own: the jail that it runs in holds no secrets, so there it can only put what it was
given, here by a model that knows them all.
"""

from __future__ import annotations

import base64
import json
import os
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from cli.terminal import Terminal

from ml_intern.secrets import Masker
from ml_intern.testing import LocalHub
from ml_intern.testing.llm import LocalLLM, Reply
from ml_intern.trace.journal import LARGEST_TEXT, Journal

CHILD = Path(__file__).with_name("canary_child.py")
ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "base64": lambda secret: base64.b64encode(f"user:{secret}!".encode()).decode(),
    "url": lambda secret: quote(secret, safe=""),
    "json": lambda secret: json.dumps(secret)[1:-1],
    "repr": lambda secret: repr(secret)[1:-1],
    "hex": lambda secret: secret.encode().hex(),
}


def make_secrets() -> list[str]:
    draw = random.Random(7)
    letters = string.ascii_letters + string.digits
    odd = letters + "+/=\"'\\&%@é~ "
    kinds = [letters, letters, letters + "+/=", odd]
    return ["x" + "".join(draw.choices(kinds[n % 4], k=draw.randint(9, 44))).strip() + "9" for n in range(60)]


SECRETS = make_secrets()


def used(channel: int) -> list[str]:
    """What a channel gets: each encoding of some secret; over all channels each secret at least once."""
    return [
        encode(SECRETS[(channel * 6 + n + turn * 36) % 60])
        for turn in range(2)
        for n, encode in enumerate(ENCODINGS.values())
    ]


def file_name(text: str) -> str:
    return text.replace("/", "_") if "/" in text and "%" not in text else quote(text, safe="")[:120]


def action(thought: str, code: str) -> str:
    return f"{thought}\n<code>\n{code}\n</code>"


def script() -> list[str]:
    """What the model says: secrets in its words, in code, what code prints (in halves), raises, names files, and calls."""
    said, coded, printed, raised, named, called, pushed = (used(channel) for channel in range(7))
    names = [file_name(text) for text in named]
    halves = f"""
import sys, time
for text in {printed!r}:
    sys.stdout.write("loss 0.1 " + text[: len(text) // 2]); sys.stdout.flush(); time.sleep(0.06)
    print(text[len(text) // 2 :], flush=True)
"""
    return [
        action(f"I know {' and '.join(said)}.", f"kept = {coded!r}\nprint(len(kept))\nkept"),
        action("I print.", halves),
        action("I raise.", f"raise ValueError({' | '.join(raised)!r})"),
        action(
            "I name files.",
            f"import os\nos.makedirs('out', exist_ok=True)\nfor name in {names!r}:\n"
            "    open('out/' + name, 'w').write('x')\nprint(os.listdir('out'))",
        ),
        action(
            "I call.",
            f"notes(add={called[0]!r})\nplan([{{'text': {called[1]!r}, 'status': 'pending'}}])\n"
            f"record_decision({called[2]!r}, {called[3]!r}, {called[4]!r}, [{called[5]!r}])\n"
            f"for text in {called!r}:\n    try:\n        print(hub_search_datasets(text[:60]))\n"
            "    except Exception as error:\n        print(error)",
        ),
        action(
            "I push.",
            "os.makedirs('pushed', exist_ok=True)\nopen('pushed/README.md', 'w').write('# A data set')\n"
            f"for n, text in enumerate({pushed!r}):\n    try:\n"
            "        print(hub_push('pushed', f'tester/canary-{n}', repo_type='dataset', commit_message=text, card='# ' + text))\n"
            "    except Exception as error:\n        print(error)",
        ),
        action("I push the files with those names.", "hub_push('out', 'tester/canary-names', repo_type='dataset')"),
        action(
            "I push files that hold them.",
            f"for n, text in enumerate({pushed!r}):\n    os.makedirs(f'data-{{n}}')\n"
            "    open(f'data-{n}/rows.csv', 'w').write('a,b\\n1,' + text)\n    try:\n"
            "        print(hub_push(f'data-{n}', f'tester/canary-rows-{n}', repo_type='dataset'))\n"
            "    except Exception as error:\n        print(error)",
        ),
        action("I answer.", f"final_answer({used(7)!r})"),
    ]


def forms() -> Iterator[tuple[int, str, str]]:
    """Everything that must be found nowhere: number of the secret, encoding, text."""
    for number, secret in enumerate(SECRETS):
        for name, encode in ENCODINGS.items():
            if name != "base64":
                yield number, name, encode(secret)
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + secret.encode()).decode().rstrip("=")
            yield number, "base64", encoded[(0, 2, 3)[shift] : len(encoded) - 1]


def leaks(text: str, where: str) -> list[str]:
    return [
        f"{where}: secret {number} in {name}, near {text[max(0, at - 60) : at]!r}"
        for number, name, form in forms()
        if (at := text.find(form)) >= 0
    ]


def unescaped(text: str) -> str:
    """All strings of JSON lines as they are read back, one after the other."""
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(key)
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    for line in text.splitlines():
        try:
            walk(json.loads(line))
        except ValueError:
            found.append(line)
    return "\n".join(found)


def on_disk(home: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(home.rglob("*")):
        inside = path.relative_to(home).as_posix()
        own = any(part in ("workspace", "snapshots", "packages") for part in path.relative_to(home).parts)
        if path.is_file() and not own:
            text = path.read_bytes().decode("utf-8", "replace")
            yield inside, f"{inside}\n{text}\n{unescaped(text)}"


@pytest.mark.timeout(300)
def test_no_secret_is_found_on_disk_on_the_wire_in_events_or_on_the_terminal(tmp_path: Path) -> None:
    assert len(set(SECRETS)) == 60 and min(map(len, SECRETS)) >= 8
    home, events = tmp_path / "home", tmp_path / "events.jsonl"
    answers = [*script(), *script()]
    with (
        LocalLLM(lambda body: Reply(answers.pop(0), chunk_chars=9)) as llm,
        LocalHub(tmp_path / "hub", {SECRETS[0]: "tester"}) as hub,
    ):
        environment = {
            **llm.environment(),
            **hub.environment(SECRETS[0]),
            "LLM_ENDPOINT": "openai/local",
            "ML_INTERN_SHARE_TRACES": "1",
            **{f"CANARY_{number}_TOKEN": secret for number, secret in enumerate(SECRETS)},
        }
        task = f"Find out about {SECRETS[59]} and {ENCODINGS['hex'](SECRETS[58])}"
        with Terminal(str(CHILD), str(home), str(events), task, columns=200, **environment) as terminal:
            terminal.until("ended with", 240)
            terminal.ends(20)
        asked = "\n".join(json.dumps(body, ensure_ascii=False) for body in llm.requests)
        wire = "\n".join(
            f"{request.method} {request.path} "
            + " ".join(value for name, value in request.headers.items() if name != "authorization")
            for request in (*hub.requests, *llm.service.requests)
        )
        stored = [
            (f"hub/{path.name}", path.read_bytes().decode("utf-8", "replace"))
            for path in sorted((tmp_path / "hub").rglob("*"))
            if path.is_file()
        ]
    told = events.read_text(encoding="utf-8")
    shared = [
        path
        for path in hub.store.repos["dataset", "tester/ml-intern-traces"].resolve("main").files
        if ".jsonl" in path
    ]
    assert told.count("holds a secret") >= 6 and "name holds a secret" in told, "what is sent away was searched"
    assert len(shared) == 2, "both traces were uploaded, and looked through below"
    assert answers == [], f"the sessions went another way:\n{terminal.screen[-4000:]}"
    assert told.count('"event": "step_finished"') == 9 and asked.count("[secret:CANARY_") > 200
    found = [
        *leaks(told + unescaped(told), "events"),
        *leaks(terminal.screen, "terminal"),
        *leaks(terminal.raw, "terminal, raw"),
        *leaks(asked + unescaped(asked), "the model's wire"),
        *leaks(wire, "the wire"),
        *(leak for name, text in stored for leak in leaks(f"{text}\n{unescaped(text)}", name)),
        *(leak for name, text in on_disk(home) for leak in leaks(text, name)),
    ]
    assert not found, f"{len(found)} leaks\n" + "\n".join(
        sorted(found, key=lambda leak: leak.startswith("the model"))[:80]
    )


def test_the_canary_can_be_found(tmp_path: Path) -> None:
    """The search itself finds each secret in each encoding: it can fail."""
    for number, secret in enumerate(SECRETS):
        for name, encode in ENCODINGS.items():
            text = json.dumps({"a": [f"x {encode(secret)} y"]})
            assert any(f"secret {number} " in leak for leak in leaks(text + unescaped(text), "here")), (number, name)
    assert os.environ.get("CANARY_1_TOKEN") is None


@pytest.mark.long
def test_a_secret_is_not_cut_in_two_before_it_is_masked(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "11111111-2222-4333-8444-555555555555.jsonl", masker=Masker({SECRETS[0]: "MINE"}))
    for before in range(1, len(SECRETS[0])):
        text = "x" * (LARGEST_TEXT // 2 - before) + SECRETS[0] + "y" * LARGEST_TEXT
        journal.result(f"call-{before}", text)
    journal.close()
    written = journal.path.read_text()
    assert SECRETS[0][:6] not in written and SECRETS[0][-6:] not in written
