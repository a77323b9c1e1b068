"""An errand from a phone, from the mention to the report, against a local Slack with the unmodified clients."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateways.slack_team import Team, action, gateway_of  # noqa: F401

from ml_intern import State
from ml_intern.events import Steered
from ml_intern.testing.slack import LocalSlack

PLAN = action(
    "plan([{'text': 'audit <!channel> data', 'status': 'in_progress'}, {'text': 'train', 'status': 'pending'}])"
)
PUBLISH = action(
    "plan([{'text': 'audit data', 'status': 'done'}, {'text': 'train', 'status': 'in_progress'}])\n"
    "print(publish(what='me/model'))"
)
PLOT = action("from PIL import Image\nimage = Image.new('RGB', (40, 30), 'red')\nimage.save('curve.png')\nimage")
REPORT = "# Trained\\n**F1** is 0.91, see curve.png and [the model](https://huggingface.co/me/model) <!here>"


def hears(messages) -> str:
    return action(f"final_answer('{REPORT}')")


def test_an_errand_from_the_mention_to_the_report(slack: LocalSlack, team: Team, home: Path) -> None:
    intern, _gateway, published = team([PLAN, PUBLISH, PLOT, hears])
    root = slack.say("UANN", "<@UBOT> fine-tune a classifier on `imdb` &amp; report")
    card = slack.wait(lambda: next((m for m in slack.said(root.ts) if "approve" in m.buttons()), None))
    (session,) = intern.sessions.values()
    plans = [m for m in slack.said(root.ts) if "Plan" in m.text]
    slack.wait(lambda: plans[0].edits >= 1)
    assert len(plans) == 1 and "☑ audit data" in plans[0].shown

    assert "publish" in card.shown and "me/model" in card.shown
    slack.click(card, "approve", user="UBEA")
    slack.wait(lambda: [m for m in slack.messages if m.to == "UBEA" and "SLACK_APPROVERS" in m.text])
    assert published == [] and session.state == "waiting"

    slack.say("UANN", "use seed 3", thread_ts=root.ts)
    slack.click(card, "approve", user="UANN")
    slack.wait(lambda: published == ["me/model"])
    slack.wait(lambda: not card.buttons() and "slack:UANN (uann)" in card.shown)
    assert session.wait(20).state is State.SUCCESS
    heard = [event for event in session.events.history if isinstance(event, Steered)]
    assert [(event.text, event.by) for event in heard] == [("use seed 3", "slack:UANN")]

    end = slack.wait(lambda: next((m for m in slack.said(root.ts) if m.text.startswith("Ended")), None))
    assert "*F1* is 0.91" in end.shown and "<https://huggingface.co/me/model>" in end.shown
    slack.wait(lambda: slack.uploads)
    assert [(upload.thread_ts, upload.data[:4]) for upload in slack.uploads] == [(root.ts, b"\x89PNG")] * len(
        slack.uploads
    )
    assert all("<!" not in m.shown.replace("<!date", "") and "<@" not in m.shown for m in slack.said())
    rows = session.trace.read_text()
    assert '"by":"slack:UANN (uann)"' in rows and "UBEA" not in rows


@pytest.mark.parametrize("name", ["verbose", "quiet"])
def test_how_much_is_told_is_set_for_each_thread(slack: LocalSlack, team: Team, name: str) -> None:
    _intern, _gateway, _ = team(
        [action("import time\ntime.sleep(0.5)"), action("print(1)"), action("final_answer('done')")]
    )
    root = slack.say("UANN", "<@UBOT> work")
    slack.wait(lambda: slack.said(root.ts))
    slack.say("UANN", name, thread_ts=root.ts)
    slack.wait(lambda: [m for m in slack.said(root.ts) if m.text.startswith("Ended")])
    lines = [m for m in slack.said(root.ts) if "I go on" in m.shown]
    assert bool(lines) == (name == "verbose")
