"""The pure parts of the Slack gateway: who may, which words, what counts as a person's; and the app's manifest."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_intern.gateways import slack_inbox as inbox
from ml_intern.gateways.slack_files import safe_name
from ml_intern.gateways.slack_members import ACTS, Members, Person
from ml_intern.gateways.slack_setup import BOT_SCOPES, MANIFEST, STEPS
from ml_intern.gateways.slack_words import Word, word


@pytest.mark.parametrize(
    ("environment", "allowed"),
    [
        ({}, {}),
        ({"SLACK_MEMBERS": "U1"}, {}),
        ({"SLACK_OWNER": "U1"}, {"U1": set(ACTS)}),
        ({"SLACK_APPROVERS": "U1, U2", "SLACK_OWNER": "U3"}, {"U1": set(ACTS), "U2": set(ACTS), "U3": set(ACTS)}),
        ({"SLACK_APPROVERS": "U1", "SLACK_MEMBERS": "U2"}, {"U1": set(ACTS), "U2": {"steer", "look"}}),
        ({"SLACK_APPROVERS": "U1 U1x"}, {"U1": set(ACTS), "U1x": set(ACTS)}),
    ],
)
def test_who_may_do_what(environment: dict[str, str], allowed: dict[str, set[str]]) -> None:
    members = Members.of(environment)
    for user in ("U1", "U2", "U3", "U1x", "", "U", "u1"):
        for act in ACTS:
            may = members.may(act, Person(user, name="U1"), "C1") == ""
            assert may == (act in allowed.get(user, set())), (user, act)


def test_sessions_begin_where_they_may() -> None:
    members = Members.of({"SLACK_OWNER": "U1", "SLACK_CHANNELS": "C1"})
    assert members.may("start", Person("U1"), "C1") == "" == members.may("start", Person("U1"), "D7")
    assert "SLACK_CHANNELS" in members.may("start", Person("U1"), "C2")


def test_a_name_is_only_shown() -> None:
    assert Person("U1", "T1", "ada").signed == "slack:U1 (ada)"
    assert Person("U1", "T1", "cli) approved by <root>\n").signed == "slack:U1 (cliapprovedbyroot)"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("stop", Word("stop")), ("Stop.", Word("stop")), ("stop using adam", None), ("don't stop", None), ("status", Word("status")),
        ("budget 5", Word("budget", 5.0)), ("budget $2.50", Word("budget", 2.5)), ("Budget 5 usd more", Word("budget", 5.0)),
        ("budget", None), ("budget -5", None), ("budget 5e9", None), ("what is the budget 5", None), ("more steps", Word("steps", 20.0)),
        ("more steps 7", Word("steps", 7.0)), ("50 more steps", Word("steps", 50.0)), ("take more steps", None),
        ("model gpt-5", Word("model", text="gpt-5")), ("model the noise as gaussian", None), ("model", Word("model")),
        ("Model hf/Qwen/Q-7B:x, `ollama/a:7b`", Word("model", text="hf/Qwen/Q-7B:x, `ollama/a:7b")), ("models", None),
        ("model `ollama/a:7b`", Word("model", text="ollama/a:7b")), ("share", Word("share")), ("share it with ann", None),
        ("verbose", Word("verbose")), ("quiet", Word("quiet")), ("/stop", Word("stop")), ("", None),
    ],
)  # fmt: skip
def test_words(text: str, meant: Word | None) -> None:
    assert word(text) == meant


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "event", "user", "text", "ts", "channel", "actions", "container", "view", "state", "values", "team", "files"]),
        inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["events_api", "interactive", "slash_commands", "hello"]), st.dictionaries(st.sampled_from(["type", "event", "user", "team", "actions", "container", "view"]), JSON))  # fmt: skip
def test_garbage_is_nobodys_word(kind: str, payload: dict) -> None:
    """Slack sends nothing like it; whatever does is passed over or fails before anything is acted on."""
    try:
        found = inbox.read(kind, payload, "T1", "UBOT")
    except (AttributeError, TypeError, ValueError):
        return
    assert found is None or found.person.team == "T1"


def test_what_is_written_down_can_be_read_again() -> None:
    person = Person("U1", "T1", "ada")
    file = inbox.Dropped("a", 1, "https://x")
    for one in (
        inbox.Said("m:1", person, "C1", "1", "2", "hi", True, False, (file,)),
        inbox.Clicked("a:1", person, "C1", "1", "approve", "k", "t"),
        inbox.Submitted("v:1", person, "edited", "k", (("arg:a", "b"),)),
        inbox.Commanded("c:1", person, "C1", "status"),
    ):
        assert inbox.from_row(inbox.to_row(one)) == one
    assert inbox.from_row({"kind": "Said"}) is None and inbox.from_row({}) is None


@given(st.text(max_size=300))
def test_a_name_stays_in_the_folder(name: str) -> None:
    safe = safe_name(name)
    assert safe and "/" not in safe and "\\" not in safe and "\0" not in safe and not safe.startswith((".", "-", " "))
    assert len(safe) <= 100


def test_the_manifest_asks_for_what_is_used() -> None:
    manifest = yaml.safe_load(MANIFEST)
    assert manifest["oauth_config"]["scopes"]["bot"] == list(BOT_SCOPES)
    assert (
        manifest["settings"]["socket_mode_enabled"] is True
        and manifest["settings"]["interactivity"]["is_enabled"] is True
    )
    assert set(manifest["settings"]["event_subscriptions"]["bot_events"]) == {
        "app_mention", "message.channels", "message.groups", "message.im", "message.mpim",
    }  # fmt: skip
    assert len(STEPS.splitlines()) == 10
