"""Where a person types, in a chat: a line at the bottom that stays there while what happens scrolls by above it.

What must never happen here: what is being typed is lost or garbled by what is shown; something typed before a question
was there counts as its answer.

Two kinds: with prompt-toolkit, and plain lines for terminals that cannot move a cursor.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.application import in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI, FormattedText, to_formatted_text
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from ..approval.asking import forget_typing
from ..secrets import Masker

PAUSE = 0.8
"""Seconds without a key after which somebody who is typing may be asked something."""

Complete = Callable[[str], Iterable[tuple[str, int, str]]]
"""Gives, for the text before the cursor: what may stand there, how many characters of it are typed, what it means."""


class GiveWay(Exception):
    """The line is needed for something else; what stood on it is kept as `draft`."""


class Surroundings:
    """What the line shows beside what is typed.

    Args:
        busy (`Callable[[], bool]`): Whether the agent works.
        status (`Callable[[], str]`): What it does now, as text for a terminal; `""` for nothing.
        mark (`Callable[[], str]`): Stands before what is typed.
        hint (`Callable[[], str]`): Stands there while nothing is typed.
    """

    def __init__(
        self,
        busy: Callable[[], bool],
        status: Callable[[], str],
        mark: Callable[[], str],
        hint: Callable[[], str],
    ) -> None:
        self.busy, self.status, self.mark, self.hint = busy, status, mark, hint


class PromptLine:
    """The line with prompt-toolkit: history, several lines, completion.

    Args:
        around (`Surroundings`): What is shown beside it.
        complete (`Complete`): Proposes what to type.
        history (`Path`, *optional*): The file that keeps what was typed, readable by its owner only.
    """

    echoes = False
    """Whether what was typed stays on the screen by itself."""

    def __init__(self, around: Surroundings, complete: Complete, history: Path | None = None) -> None:
        self.draft = ""
        self._around = around
        self._typed = 0.0
        self._yielding: asyncio.Task[None] | None = None
        self._talk: PromptSession[str] = PromptSession(
            message=self._message,
            multiline=True,
            history=PrivateHistory(history) if history else InMemoryHistory(),
            completer=_Completer(complete),
            complete_in_thread=True,  # it may have to look through traces
            complete_while_typing=Condition(lambda: self._talk.default_buffer.text.startswith("/")),
            key_bindings=self._keys(),
            enable_open_in_editor=True,
            enable_suspend=True,
            erase_when_done=True,
            placeholder=lambda: FormattedText([("ansibrightblack", around.hint())]),
            prompt_continuation="  ",
            refresh_interval=0.2,
            reserve_space_for_menu=6,
            tempfile_suffix=".md",
        )
        self._answer: PromptSession[str] = PromptSession(history=InMemoryHistory(), key_bindings=_interruptible())
        self._reading: PromptSession[str] | None = None
        self._talk.default_buffer.on_text_changed += self._changed

    async def read(self, prompt: str = "") -> str:
        """What is typed next.

        Args:
            prompt (`str`, *optional*): Makes it the answer to a question, on a line of its own.

        Raises:
            GiveWay: the line is needed for something else.
            KeyboardInterrupt: Ctrl-C.
            EOFError: Ctrl-D, or the terminal is gone.
        """
        session = self._reading = self._answer if prompt else self._talk
        try:
            if prompt:
                return await session.prompt_async(prompt, handle_sigint=False)
            text = await session.prompt_async(default=self.draft, handle_sigint=False)
            self.draft = ""
            return text
        finally:
            self._reading = None

    async def draw(self, put: Callable[[], None]) -> None:
        """Calls `put`, which prints, with the line out of the way."""
        async with in_terminal():
            put()

    def end(self, error: BaseException) -> None:
        """Ends a `read` with `error`; one who is typing is given time to finish where it is a [`GiveWay`]."""
        if isinstance(error, GiveWay) and self._reading is self._talk:
            if self._yielding is None or self._yielding.done():
                self._yielding = asyncio.get_running_loop().create_task(self._give_way(error))
        else:
            self._exit(error)

    def forget(self) -> None:
        """What has been typed and not read yet is dropped."""
        clear_typeahead(self._answer.input)
        forget_typing()

    async def _give_way(self, error: GiveWay) -> None:
        buffer = self._talk.default_buffer
        while self._reading is self._talk and buffer.text and time.monotonic() - self._typed < PAUSE:
            await asyncio.sleep(0.05)
        if self._reading is self._talk:
            self._exit(error)

    def _exit(self, error: BaseException) -> None:
        session = self._reading
        if session is None or not session.app.is_running or session.app.future is None or session.app.future.done():
            return
        if session is self._talk:
            self.draft = session.default_buffer.text
        session.app.exit(exception=error)

    def _changed(self, _: object) -> None:
        self._typed = time.monotonic()

    def _message(self) -> FormattedText:
        status = self._around.status()
        return FormattedText(
            [*to_formatted_text(ANSI(f"{status}\n" if status else "")), ("bold", self._around.mark())]
        )

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter")
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.complete_state and buffer.complete_state.current_completion:
                buffer.complete_state = None
            elif buffer.document.is_cursor_at_the_end and buffer.text.endswith("\\"):
                buffer.delete_before_cursor()
                buffer.insert_text("\n")
            elif buffer.text.strip():
                buffer.validate_and_handle()

        @keys.add("escape", "enter")
        @keys.add("c-j")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            if event.current_buffer.text and not self._around.busy():
                event.current_buffer.reset()
            else:
                self._exit(KeyboardInterrupt())

        return keys


class PlainLine:
    """The line on a terminal that cannot move its cursor: whole lines, as the terminal gives them.

    Args:
        around (`Surroundings`): Whether the agent works: then nothing stands at the bottom.
        file (`TextIO`, *optional*): Where prompts go; defaults to standard output.
    """

    echoes = True

    def __init__(self, around: Surroundings, file: TextIO | None = None) -> None:
        self.draft = ""
        self._around = around
        self._file = file or sys.stdout
        self._lines: deque[str] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._prompt = ""
        self._shown = self._ended = False
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._readable)

    async def read(self, prompt: str = "") -> str:
        """As of [`PromptLine`]; a backslash at the end of a line takes the next one as well."""
        self._prompt = prompt or self._around.mark()
        self._show_prompt()
        taken: list[str] = []
        try:
            while True:
                while not self._lines:
                    if self._ended:
                        raise EOFError
                    self._waiting = asyncio.get_running_loop().create_future()
                    await self._waiting
                line = self._lines.popleft()
                taken.append(line.removesuffix("\\"))
                if not line.endswith("\\") and (prompt or "".join(taken).strip()):
                    return "\n".join(taken)
        finally:
            self._waiting, self._prompt, self._shown = None, "", False

    async def draw(self, put: Callable[[], None]) -> None:
        if self._shown:
            self._file.write("\n")
        self._shown = False
        put()
        if self._prompt:
            self._show_prompt()

    def end(self, error: BaseException) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    def forget(self) -> None:
        self._lines.clear()
        forget_typing()

    def _show_prompt(self) -> None:
        if not self._around.busy() or self._prompt != self._around.mark():
            self._file.write(self._prompt)
            self._shown = True
        self._file.flush()

    def _readable(self) -> None:
        data = os.read(sys.stdin.fileno(), 4096)
        self._lines.extend(data.decode(sys.stdin.encoding or "utf-8", "replace").splitlines())
        if not data:
            self._ended = True
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class PrivateHistory(FileHistory):
    """What was typed before, in a file that only its owner reads, without secrets.

    Args:
        path (`Path`): The file; it is made if need be.
    """

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
        self._mask = Masker().text
        super().__init__(path)

    def store_string(self, string: str) -> None:
        super().store_string(self._mask(string))


class _Completer(Completer):
    def __init__(self, complete: Complete) -> None:
        self._complete = complete

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        for text, typed, meaning in self._complete(document.text_before_cursor):
            yield Completion(text, -typed, display_meta=meaning)


def _interruptible() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        event.app.exit(exception=KeyboardInterrupt())

    return keys
