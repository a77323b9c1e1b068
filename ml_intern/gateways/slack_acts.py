"""What people in Slack do to sessions: begin, steer, stop, give more.

What must never happen here: an act of somebody who may not; a session that is begun twice for one message.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from ..errors import InternError
from ..events import ApprovalAnswer
from ..execution import Workspace
from ..session import Session
from ..trace.sharing import share_now
from . import slack_cards as cards
from .peers import Peer, Running
from .slack_answers import Answers, Refused
from .slack_book import Thread
from .slack_files import fetch
from .slack_inbox import Clicked, Commanded, Inbound, Said, Submitted
from .slack_outbox import Place
from .slack_teller import Talk
from .slack_text import one_line, plain, span
from .slack_words import HELP, Word, word

_NAMED = re.compile(r"(.*\S)\s+`?([0-9a-fA-F]{4,8}|[0-9a-fA-F]{8}-[0-9a-fA-F-]+)`?")
"""A word, and the session that it is for."""
EARLY = 100
"""Replies that are kept while the message that they reply to has not come."""


class Acts:
    """Carries out what people do.

    Args:
        answers (`Answers`): Answers questions, and knows who may do what.
        join (`Callable[[Session, Place], Talk]`): Has a session told in a thread.
        talk_of (`Callable[[str], Talk | None]`): The thread of a session that is told here.
        say (`Callable[[Place, str], None]`): Says a line in a thread.
        placing (`threading.RLock`): Held while a session is begun and its thread is not known yet.
    """

    def __init__(
        self,
        answers: Answers,
        join: Callable[[Session, Place], Talk],
        talk_of: Callable[[str], Talk | None],
        say: Callable[[Place, str], None],
        placing: threading.RLock,
    ) -> None:
        self.answers, self._intern, self._client, self._book = answers, answers.intern, answers.client, answers.book
        self._join, self._talk_of, self._say, self._placing = join, talk_of, say, placing
        self._early: list[Said] = []
        self._told: set[tuple[str, str]] = set()
        self.me = ""

    def concerns(self, inbound: Inbound) -> bool:
        """Whether it is said to the intern: other people's talk is neither kept nor looked at."""
        if not isinstance(inbound, Said) or inbound.mentions or inbound.direct:
            return True
        if not inbound.thread_ts:
            return False
        if self._book.session_in(inbound.channel, inbound.thread_ts):
            return True
        if not any(said.id == inbound.id for said in self._early):
            self._early = [*self._early, inbound][-EARLY:]
        return False

    def act(self, inbound: Inbound) -> None:
        """Carries it out; what cannot be is told to who wanted it."""
        try:
            match inbound:
                case Clicked():
                    self.answers.clicked(inbound)
                case Submitted():
                    self.answers.submitted(inbound)
                case Commanded():
                    self._commanded(inbound)
                case Said():
                    self._said(inbound)
        except InternError as error:
            self.answers.whisper(inbound, f"{one_line(str(error), 600)}")

    # Words.

    def _said(self, said: Said) -> None:
        there = self._book.session_in(said.channel, said.thread_ts) if said.thread_ts else ""
        text = self._text(said)
        if there:
            wanted = word(text) if not said.files else None
            if wanted is not None:
                self._tell(self._word(wanted, there, said), Place(said.channel, said.thread_ts))
            else:
                self._steer(there, said, text)
        elif said.mentions or said.direct:
            self._begin(said, text)

    def _text(self, said: Said) -> str:
        return plain(re.sub(rf"<@{re.escape(self.me)}(?:\|[^<>]*)?>", " ", said.text)).strip()

    def _begin(self, said: Said, text: str) -> None:
        thread = said.thread_ts or said.ts
        if (asked := word(text)) is not None and not said.files:
            self.answers.may("look", said.person)
            self.answers.whisper(said, self._all() if asked.name == "status" else HELP)
            return
        self.answers.may("start", said.person, said.channel)
        with tempfile.TemporaryDirectory(prefix="slack-") as folder:
            files = fetch(said.files, Path(folder), self._client.token or "", self._client.base_url)
            with self._placing:
                if self._book.session_in(said.channel, thread):
                    return  # it was begun before this process was started anew
                session = self._intern.submit(text or "Look at what was handed over and say what it is.", files=files)
                self._book.note_thread(session.id, said.channel, thread, said.person.id)
                self._join(session, Place(said.channel, thread))
        early = [one for one in self._early if (one.channel, one.thread_ts) == (said.channel, thread)]
        self._early = [one for one in self._early if one not in early]
        for one in sorted(early, key=lambda one: one.ts):
            if self._book.take(one.id, {}):
                self.act(one)
                self._book.done(one.id)

    def _steer(self, session_id: str, said: Said, text: str) -> None:
        if reason := self.answers.members().may("steer", said.person):
            if (session_id, said.person.id) not in self._told:  # people may talk to each other; once is enough
                self._told.add((session_id, said.person.id))
                raise Refused(reason)
            return
        found = None if session_id in self._intern.sessions else self.answers.elsewhere(session_id)
        if said.files:
            text = "\n".join([text, *self._drop(session_id, said, found is not None)]).strip()
        if not text:
            return
        if found is not None:
            found[0].steer(session_id, text, said.person.signed)
            return
        session = self._intern.sessions.get(session_id)
        if session is None or session.state not in ("running", "waiting"):
            self.answers.may(
                "start", said.person, said.channel
            )  # it begins something; steering is for what is at work
            session = self.answers.woken(session_id)
        questions = [request for request in session.pending() if request.tool == cards.QUESTION]
        alone = len(questions) == 1 and len(session.pending()) == 1 and not said.files
        if alone and not self.answers.members().may("approve", said.person):
            session.answer(
                questions[0].call_id, ApprovalAnswer("approve", by=said.person.signed, text=text), questions[0]
            )
            return
        session.steer(text, said.person.signed)

    def _drop(self, session_id: str, said: Said, elsewhere: bool) -> list[str]:
        """Puts dropped files into the workspace. Returns what the agent is told of them."""
        root = self._intern.settings.sessions() / session_id / "workspace"
        if elsewhere and not root.is_dir():
            raise InternError("The files were not taken", "that session runs on another machine")
        workspace, told = Workspace(root), []
        with tempfile.TemporaryDirectory(prefix="slack-") as folder:
            for path in fetch(said.files, Path(folder), self._client.token or "", self._client.base_url):
                name, number = path.name, 1
                while workspace.exists(name):
                    number += 1
                    name = f"{path.stem}-{number}{path.suffix}"
                workspace.write_bytes(name, path.read_bytes())
                told.append(f"The file `{name}` is in the workspace now ({path.stat().st_size:,} bytes).")
        return told

    def _word(self, wanted: Word, session_id: str, inbound: Said | Commanded) -> str:
        """Carries out a word. Returns what is said of it, `""` where it is told as it happens."""
        self.answers.may(wanted.act, inbound.person)
        by, session = inbound.person.signed, self._intern.sessions.get(session_id)
        found = None if session is not None else self.answers.elsewhere(session_id)
        match wanted.name:
            case "help":
                return HELP
            case "verbose" | "quiet":
                loud = wanted.name == "verbose"
                self._book.note(session_id, loud=loud)
                return "Each step is told from here on." if loud else "Only what matters is told from here on."
            case "model":
                return self._model(wanted.text, session_id, found, by)
            case "stop" if found is not None:
                found[0].stop(session_id)
            case "stop" if session is None or session.state not in ("running", "waiting"):
                return "There is nothing to stop: no turn is open."
            case "stop" if session is not None:
                session.interrupt()
                return f"Stopping it ({span(by)})."
            case "status":
                return self._status(session_id)
            case "share":
                trace = self._intern.settings.sessions() / f"{session_id}.jsonl"
                shared = share_now(self._intern.settings.home, trace)
                return f"The trace is shared: <{one_line(shared.url, 500)}>"
            case "budget" | "steps":
                return self._extend(wanted, session_id, found, by)
        return ""

    def _model(self, name: str, session_id: str, found: tuple[Peer, Running] | None, by: str) -> str:
        if not name:
            now = self._book.thread(session_id)
            return (
                f"Session {span(session_id[:8])}"
                + (f": {span(now.model)}" if now and now.model else "")
                + (". `model NAME` has another one write; a name is what LLM_ENDPOINT takes.")
            )
        if found is not None:
            found[0].set_model(session_id, name, by)
        else:
            self.answers.woken(session_id)
            self._intern.set_model(name, session_id, by)
        self._book.note(session_id, model=name)
        return f"{span(name)} writes from its next step on ({span(by)})."

    def _extend(self, wanted: Word, session_id: str, found: tuple[Peer, Running] | None, by: str) -> str:
        usd, steps = (wanted.number, 0) if wanted.name == "budget" else (0.0, int(wanted.number))
        if found is not None:
            found[0].extend(session_id, steps, usd, by)
        else:
            session = self.answers.woken(session_id)
            if usd and session.config.budget_usd is None:
                raise InternError("There is no budget that could be raised", "what it may spend is not limited")
            session.extend(steps, usd, by=by)
        return f"It may spend ${usd:.2f} more ({span(by)})." if usd else ""  # steps are told as it happens

    def _status(self, session_id: str) -> str:
        session = self._intern.sessions.get(session_id)
        if session is None:
            found = self.answers.elsewhere(session_id)
            if found is None:
                return f"Session {span(session_id[:8])} is not at work. Write to it here to go on."
            state, title, cost = found[1].state, found[1].title, found[1].cost_usd
            questions = list(found[1].questions)
        else:
            state, title, cost = session.state, session.title, session.usage.cost_usd
            questions = [request.tool for request in session.pending()]
        lines = [f"*{one_line(state)}* · {one_line(title or 'no title yet', 200)}"]
        lines.append(f"{'cost unknown' if cost is None else f'${cost:.2f}'} · session {span(session_id[:8])}")
        lines += [f"waits for an answer: {span(question)}" for question in questions]
        return "\n".join(lines)

    def _all(self) -> str:
        sessions = list(self._intern.sessions.values())[-20:]
        if not sessions:
            return "Nothing is at work. Say what to do."
        return "\n".join(f"• {one_line(s.title or s.id[:8], 100)}: {one_line(s.state)}" for s in sessions)

    def _commanded(self, command: Commanded) -> None:
        text = plain(command.text).strip()
        wanted, named = word(text), ""
        found = _NAMED.fullmatch(text) if wanted is None or wanted.text else None
        if found is not None and any(one.session.startswith(found[2].lower()) for one in self._book.threads()):
            wanted, named = word(found[1]), found[2]
        if not text or (wanted is not None and wanted.name in ("help", "status") and not named):
            self.answers.may("look", command.person)
            self.answers.whisper(command, self._all() if wanted is not None and wanted.name == "status" else HELP)
        elif wanted is not None:
            self.answers.may(wanted.act, command.person)
            thread = self._meant(command, named)
            said = self._word(wanted, thread.session, command)
            self.answers.whisper(command, said or "Done.")
            if wanted.name != "status":
                self._tell(said, Place(thread.channel, thread.ts))
        else:
            self._begin_here(command, text)

    def _begin_here(self, command: Commanded, text: str) -> None:
        self.answers.may("start", command.person, command.channel)
        self.answers.reached(command.channel)
        with self._placing:
            session = self._intern.submit(text)
            self._join(session, Place(command.channel))

    def _meant(self, command: Commanded, named: str) -> Thread:
        """The session that a command is about: the one it names, else the only one at work in its channel, else the newest."""
        every = [thread for thread in self._book.threads() if thread.ts]
        if named:
            found = [thread for thread in every if thread.session.startswith(named.lower())]
        else:
            here = [thread for thread in every if thread.channel == command.channel]
            found = [thread for thread in here if self._at_work(thread)] or here[-1:]
        if len(found) == 1:
            return found[0]
        if not found:
            raise InternError("There is no such session here", "", "Say it in its thread.")
        ids = ", ".join(thread.session[:8] for thread in found[-8:])
        raise InternError(
            "Several sessions are at work here", ids, "Name one: /ml-intern stop 1a2b3c4d, or say it in its thread."
        )

    def _at_work(self, thread: Thread) -> bool:
        """Whether it goes on. Of a session of this process the book may not have heard yet that it has ended."""
        session = self._intern.sessions.get(thread.session)
        return thread.open if session is None else session.state in ("running", "waiting")

    def _tell(self, text: str, place: Place) -> None:
        if text:
            self._say(place, text)
