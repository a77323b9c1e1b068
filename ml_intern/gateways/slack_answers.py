"""The questions of sessions, and what people in Slack answer.

What must never happen here: an answer of somebody who may not give it; an answer to another question than the one that was
shown; an answer that counts twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import InternError
from ..events import ApprovalAnswer, ApprovalRequest
from ..intern import MLIntern
from ..session import Session
from . import slack_cards as cards
from . import slack_modals as modals
from .peers import Peer, Running, find
from .slack_book import Asked, Book
from .slack_files import of_slack
from .slack_inbox import Clicked, Commanded, Inbound, Said, Submitted
from .slack_members import Members, Person
from .slack_outbox import explain
from .slack_teller import digest
from .slack_text import one_line

if TYPE_CHECKING:
    from slack_sdk import WebClient

OPENS_MODAL = (cards.REJECT, cards.EDIT, cards.ANSWER)


class Refused(InternError):
    """Somebody may not do what they did."""


class Answers:
    """Answers the questions of sessions, wherever these are: here, in another process of this machine, or asleep on record.

    Args:
        intern (`MLIntern`): Whose sessions.
        client (`WebClient`): Opens modals, and tells one person something.
        book (`Book`): Threads and questions.
        members (`Callable[[], Members]`): Who may do what, at this moment.
    """

    def __init__(self, intern: MLIntern, client: WebClient, book: Book, members: Callable[[], Members]) -> None:
        self.intern, self.client, self.book, self.members = intern, client, book, members
        self._waking = threading.Lock()

    def open_modal(self, click: Clicked) -> None:
        """Asks for a reason, an answer or arguments. Slack gives three seconds for it after the click."""
        from slack_sdk.errors import SlackClientError

        try:
            self.may("approve", click.person)
            asked = self._asked(click)
            request = self._request(asked)
        except InternError as error:
            self.whisper(click, one_line(str(error), 600))
            return
        build = {cards.REJECT: modals.reason, cards.EDIT: modals.edit, cards.ANSWER: modals.answer}[click.action]
        try:
            self.client.views_open(trigger_id=click.trigger, view=build(request, asked.key))
        except (SlackClientError, OSError):
            self.whisper(click, "Slack did not open the form. Press the button again.")

    def wrong(self, submitted: Submitted) -> dict[str, str]:
        """What is wrong with a form, by input: shown in it."""
        if submitted.purpose != modals.EDITED:
            return {}
        asked = self.book.asked(submitted.key)
        if asked is None or asked.closed:
            return {}
        if asked.session not in self.intern.sessions and self.elsewhere(asked.session) is None:
            return {}  # to wake it takes longer than Slack waits
        try:
            return modals.changes(self._request(asked), dict(submitted.values))[1]
        except InternError:
            return {}  # it is said when it is acted on

    def clicked(self, click: Clicked) -> None:
        self.may("approve", click.person)
        asked, by = self._asked(click), click.person.signed

        def answer(request: ApprovalRequest) -> ApprovalAnswer:
            if click.action == cards.APPROVE and request.tool != cards.QUESTION:
                return ApprovalAnswer("approve", by=by)
            if click.action == cards.FOR_SESSION and request.rule:
                return ApprovalAnswer("approve", by=by, scope="session")
            number = click.action.removeprefix(cards.CHOICE)
            choices = cards.choices_of(request) if request.tool == cards.QUESTION else []
            if click.action.startswith(cards.CHOICE) and number.isdecimal() and int(number) < len(choices):
                return ApprovalAnswer("approve", by=by, text=choices[int(number)])
            raise Refused("That button is not one of this question's")

        self._answer(asked, answer)

    def submitted(self, form: Submitted) -> None:
        self.may("approve", form.person)
        asked, by, values = self.book.asked(form.key), form.person.signed, dict(form.values)
        if asked is None:
            raise Refused("That form belongs to no question that was asked here")

        def answer(request: ApprovalRequest) -> ApprovalAnswer:
            match form.purpose:
                case modals.REASON:
                    return ApprovalAnswer("reject", values.get("reason", "").strip(), by)
                case modals.ANSWERED if request.tool == cards.QUESTION:
                    return ApprovalAnswer("approve", by=by, text=values.get("answer", "").strip())
                case modals.EDITED if request.tool != cards.QUESTION:
                    changed, wrong = modals.changes(request, values)
                    if wrong:
                        raise InternError("Those arguments cannot be used", next(iter(wrong.values())))
                    if not changed:
                        raise InternError("Nothing was changed", "", "Approve it instead.")
                    return ApprovalAnswer("edit", by=by, arguments=changed)
            raise Refused("That form does not belong to this question")

        self._answer(asked, answer)

    def _asked(self, click: Clicked) -> Asked:
        """The question whose button it is: the button, the message and the question have to belong together."""
        for _ in range(100):
            asked = self.book.asked(click.key)
            if asked is None or asked.ts:
                break
            time.sleep(0.02)  # it was pressed before it was noted where it stands
        if asked is None or (asked.channel, asked.ts) != (click.channel, click.ts):
            raise Refused("That button belongs to no question that was asked here")
        if asked.closed:
            raise InternError("That has been answered, or is not waited for any more")
        return asked

    def _request(self, asked: Asked) -> ApprovalRequest:
        """The question as it waits now."""
        session = self.intern.sessions.get(asked.session)
        if session is not None:
            return _waiting(session.pending(), asked)
        if (found := self.elsewhere(asked.session)) is not None:
            return _waiting(found[0].pending(asked.session), asked)
        return _waiting(self.woken(asked.session).pending(), asked)

    def _answer(self, asked: Asked, answer: Callable[[ApprovalRequest], ApprovalAnswer]) -> None:
        if asked.closed:
            raise InternError("That has been answered, or is not waited for any more")
        session = self.intern.sessions.get(asked.session)
        if session is None and (found := self.elsewhere(asked.session)) is not None:
            request = _waiting(found[0].pending(asked.session), asked)
            found[0].answer(asked.session, asked.call, answer(request), request)
            return
        session = session or self.woken(asked.session)
        request = _waiting(session.pending(), asked)
        session.answer(asked.call, answer(request), request)

    def elsewhere(self, session_id: str) -> tuple[Peer, Running] | None:
        """The process that has a session, where it is not this one."""
        try:
            return find(self.intern.settings.home.expanduser().absolute(), session_id)
        except InternError:
            return None

    def woken(self, session_id: str) -> Session:
        """A session that was let go by a process that is gone, taken up from its trace."""
        with self._waking:
            return self.intern.sessions.get(session_id) or self.intern.resume(session_id)

    # Who may, and who is told that they may not.

    def may(self, act: str, person: Person, channel: str = "") -> None:
        if reason := self.members().may(act, person, channel):
            raise Refused(reason)

    def whisper(self, inbound: Inbound, text: str) -> None:
        """Tells one person something; where Slack does not take it, nobody is told."""
        from slack_sdk.errors import SlackClientError

        if isinstance(inbound, Commanded) and inbound.reply_to and self._reply(inbound.reply_to, text):
            return
        channel = "" if isinstance(inbound, Submitted) else inbound.channel
        thread = inbound.thread_ts or (inbound.ts if inbound.mentions else "") if isinstance(inbound, Said) else ""
        if isinstance(inbound, Submitted) and (asked := self.book.asked(inbound.key)) is not None:
            channel = asked.channel
        try:
            if channel:
                self.client.chat_postEphemeral(
                    channel=channel, user=inbound.person.id, text=text, thread_ts=thread or None, parse="none"
                )
        except (SlackClientError, OSError):
            return

    def reached(self, channel: str) -> None:
        """Looks whether the app may speak in a channel: a slash command works where it was never invited.

        Raises:
            InternError: it may not.
        """
        from slack_sdk.errors import SlackApiError, SlackClientError

        if channel.startswith("D"):
            return
        try:
            info = self.client.conversations_info(channel=channel)["channel"]
        except SlackApiError as error:
            if (code := str(error.response.get("error", ""))) == "channel_not_found":
                raise Refused(explain(code)) from None
            return  # it may lack the scope to look
        except (SlackClientError, OSError):
            return
        if not info.get("is_member", True) and not info.get("is_im"):
            raise Refused(explain("not_in_channel"))
        if info.get("is_ext_shared"):
            raise Refused("This channel is shared with another workspace: nothing begins here")

    def _reply(self, address: str, text: str) -> bool:
        """To who used a slash command, wherever that was. Whether Slack took it."""
        from slack_sdk.errors import SlackClientError
        from slack_sdk.webhook import WebhookClient

        if not of_slack(address, self.client.base_url):
            return False
        try:
            return WebhookClient(address, timeout=10).send(text=text, response_type="ephemeral").status_code == 200
        except (SlackClientError, OSError):
            return False


def _waiting(pending: list[ApprovalRequest], asked: Asked) -> ApprovalRequest:
    """The question that was shown, among those that wait.

    Raises:
        InternError: it does not wait, or asks about something else by now.
    """
    request = next((request for request in pending if request.call_id == asked.call), None)
    if request is None:
        raise InternError("That has been answered, or is not waited for any more")
    if digest(request) != asked.digest:
        raise InternError("That is not what is asked any more", "it was changed", "Answer the newer message.")
    return request
