"""Uploading sessions in the background: at turn ends, compactions and at the end, and again what failed before.

What must never happen here: a step waits for the Hub; an upload that failed is forgotten, or done twice; the same trouble
is told over and over; something is uploaded that the user turned off, or to where others can read it without the user's
word.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InternError
from ..secrets import Masker
from .bundle import bundle, path_of
from .share import DATASET, NotShared, Shared, share
from .sharing_home import Pending, SharingHome

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SWITCH = "ML_INTERN_SHARE_TRACES"
WAITS = (5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds from one failure to the next try, the last of them from then on."""
WHO_SECONDS = 5.0
"""How long one waits for the Hub to say who the user is."""
ANNOUNCED = (
    "From now on the trace of each session is uploaded to {repo_id}, a private data set of yours. "
    "`share off` or {switch}=0 turns that off; `share status` shows it."
)


def is_wanted(home: Path, flag: bool | None = None) -> tuple[bool, str]:
    """Whether sessions are to be uploaded, and who says so: a flag of this run, the environment, `share on|off`, else yes.

    Args:
        home (`Path`): The home of sessions.
        flag (`bool`, *optional*): Of this run.
    """
    if flag is not None:
        return flag, "this run"
    said = os.environ.get(SWITCH, "").strip().lower()
    if said:
        return said not in ("0", "false", "no", "off", "f", "n"), SWITCH
    chosen = SharingHome(home).choice().on
    return (True, "the default") if chosen is None else (chosen, f"share {'on' if chosen else 'off'}")


class Sharer:
    """Uploads the sessions of a home in the background. Safe to use from several threads, and in several processes at once.

    What has to be uploaded is marked in the home before [`trace_changed`] returns, so that neither a Hub that is down nor
    the end of this process loses it: whoever works with this home next tries again.

    Args:
        home (`Path`): The home of sessions.
        on_warn (`Callable[[str], None]`): Told what a person should know, each thing once. On a thread of its own.
        wanted (`bool`, *optional*): Whether this run shares; otherwise as [`is_wanted`] says.
        api (`Callable[[], HfApi]`, *optional*): Makes the client; defaults to the official one as the environment has it.
        waits (`Sequence[float]`): Seconds from one failure to the next try.
        masker (`Masker`, *optional*): Defaults to one that knows this process's secrets.
    """

    def __init__(
        self,
        home: Path,
        on_warn: Callable[[str], None],
        wanted: bool | None = None,
        *,
        api: Callable[[], HfApi] | None = None,
        waits: Sequence[float] = WAITS,
        masker: Masker | None = None,
    ) -> None:
        self._home, self._on_warn, self._flag = SharingHome(home), on_warn, wanted
        self._api, self._waits, self._masker = api or _client, tuple(waits), masker
        self._said: set[str] = set()
        self._data_set = ""  # its address, once it was found out
        self._changed = threading.Condition()
        self._asked = self._tried = 0  # changes told of, and how many of them have been tried
        self._due: float | None = None  # when to try next (monotonic), `None`: nothing to do
        self._patience = 0.0  # until when the Hub wants to be left alone
        self._failures = 0
        self._closing = False
        self._thread: threading.Thread | None = None
        if self.wanted and self._home.pending():  # what an earlier process could not upload
            self._wake()

    @property
    def wanted(self) -> bool:
        """Whether sessions are uploaded: it is wanted, and there is a token of the Hub's."""
        return is_wanted(self._home.home, self._flag)[0] and _has_token()

    def trace_changed(self, trace: Path) -> None:
        """A session has come to a point from which it is worth uploading. Returns at once."""
        if not self.wanted:
            return
        try:
            self._home.want(trace)
        except OSError as error:
            self._warn(f"The trace cannot be marked for its upload: {error.strerror or error}")
            return
        with self._changed:
            self._asked += 1
        self._wake()

    def url_of(self, trace: Path) -> str:
        """Where a session lies on the Hub, `""` while it does not."""
        return self._home.url(trace.stem)

    def address_of(self, trace: Path) -> str:
        """Where a session lies on the Hub, or will once it is uploaded; `""` where it will not be, or nobody can say.

        The user's name there is asked for once, for a few seconds at most.
        """
        if url := self.url_of(trace):
            return url
        if not self.wanted or self._home.failure(trace.stem) is not None:
            return ""
        if not self._data_set:
            found: queue.SimpleQueue[str] = queue.SimpleQueue()
            threading.Thread(
                target=self._find_data_set, args=(found.put,), name="share-traces-where", daemon=True
            ).start()
            with contextlib.suppress(queue.Empty):
                self._data_set = found.get(timeout=WHO_SECONDS)
        return f"{self._data_set}/blob/main/{path_of(trace)}" if self._data_set else ""

    def _find_data_set(self, put: Callable[[str], None]) -> None:
        try:
            api = self._api()
            put(f"{api.endpoint}/datasets/{api.whoami()['name']}/{DATASET}")
        except Exception:  # noqa: BLE001 - the client's HTTP library differs between its releases; it is not known then
            put("")

    def flush(self, timeout: float) -> bool:
        """Waits until all that has changed was tried. Returns whether it is uploaded: nothing is left to do.

        Args:
            timeout (`float`): Seconds to wait at most.
        """
        with self._changed:
            asked = self._asked
            if self._thread is None or not self._thread.is_alive():
                return not self._home.pending()
            if self._tried < asked:
                self._due = max(time.monotonic(), self._patience)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._tried >= asked, timeout)
        return not self._home.pending()

    def close(self, timeout: float = 10.0) -> bool:
        """[`flush`], and then no more. What is not uploaded by then is at the next start.

        Args:
            timeout (`float`, defaults to 10): Seconds to wait at most.
        """
        done = self.flush(timeout)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        return done

    def _wake(self) -> None:
        with self._changed:
            now = max(time.monotonic(), self._patience)
            self._due = now if self._due is None or not self._failures else min(self._due, now)
            if (self._thread is None or not self._thread.is_alive()) and not self._closing:
                self._thread = threading.Thread(target=self._work, name="share-traces", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _work(self) -> None:
        _quieten()
        try:
            self._tries()
        finally:
            _QUIET.discard(threading.get_ident())

    def _tries(self) -> None:
        while True:
            with self._changed:
                while not self._closing and (self._due is None or self._due > time.monotonic()):
                    self._changed.wait(None if self._due is None else max(0.0, self._due - time.monotonic()))
                if self._closing:
                    return
                asked, self._due = self._asked, None
            try:
                tried = self._round()
            except OSError as error:  # the home itself: full, or read-only
                self._warn(f"Traces cannot be uploaded: {error.strerror or error}")
                tried = True
            with self._changed:
                if tried:
                    self._tried = asked
                else:
                    self._due = time.monotonic() + 0.3  # another process is at it
                self._changed.notify_all()

    def _round(self) -> bool:
        """Tries all that is to be uploaded, whoever marked it. Returns whether it was this process's turn."""
        with self._home.lock() as mine:
            if not mine:
                return False
            for pending in self._home.pending():
                if self._closing or not self._one(pending):
                    break
        return True

    def _one(self, pending: Pending) -> bool:
        """Uploads one session. Returns whether to go on with the next."""
        self._home.begin(pending.id)
        self._masker = self._masker or Masker()
        try:
            digest = _digest(pending.trace, self._masker)
            if digest and digest != self._home.digest(pending.id):
                shared = share(
                    pending.trace, self._api(), masker=self._masker, consented=self._consented, before=self._announce
                )
                self._home.done(pending.id, shared.url, digest)
                self._told(shared)
            else:
                self._home.drop(pending.id)
        except FileNotFoundError:  # removed since
            self._home.drop(pending.id)
        except (InternError, OSError, UnicodeDecodeError) as error:
            self._home.failed(pending.id, str(error))
            return self._put_off(error)
        self._failures = 0
        return True

    def _put_off(self, error: Exception) -> bool:
        """After a failure: tells of it once, and when to try again. Returns whether other sessions may fare better."""
        again = not isinstance(error, NotShared) or error.again
        wait = self._waits[min(self._failures, len(self._waits) - 1)] if again else self._waits[-1]
        after = error.after if isinstance(error, NotShared) else 0.0
        with self._changed:
            now = time.monotonic()
            self._failures += 1
            self._patience = now + after
            self._due = now + max(wait, after)
        self._warn(str(error))
        return not isinstance(error, NotShared)

    def _consented(self, repo_id: str) -> bool:
        return self._home.choice().public == repo_id

    def _announce(self, repo_id: str) -> None:
        if self._home.announce():
            self._on_warn(ANNOUNCED.format(repo_id=repo_id, switch=SWITCH))

    def _told(self, shared: Shared) -> None:
        self._said.clear()  # trouble that comes back later is news
        if shared.left_out:
            self._warn(f"{shared.left_out} large outputs of {shared.path} were too much to upload; they stay here.")

    def _warn(self, text: str) -> None:
        # The same trouble with another session is the same trouble.
        what = text.split("\n")[0]
        if what not in self._said:
            self._said.add(what)
            self._on_warn(text)


def share_now(home: Path, trace: Path, api: HfApi | None = None) -> Shared:
    """Uploads a session while one waits, whether sharing is on or off; who may read it is as recorded in the home.

    Raises:
        NotShared: it was not uploaded; why, and what to do.
    """
    files = SharingHome(home)
    shared = share(trace, api or _client(), consented=lambda repo_id: files.choice().public == repo_id)
    with contextlib.suppress(OSError):
        files.uploaded_at(trace.stem, shared.url)
    return shared


_QUIET: set[int] = set()
_FILTERED: list[bool] = []


def _quieten() -> None:
    """What the client says of its tries on this thread stays off the terminal: a person is told once, in our words."""
    if not _FILTERED:
        _FILTERED.append(True)
        for name in ("huggingface_hub.utils._http", "huggingface_hub.hf_api", "huggingface_hub._commit_api"):
            logging.getLogger(name).addFilter(lambda record: record.thread not in _QUIET)
    _QUIET.add(threading.get_ident())


def _digest(trace: Path, masker: Masker) -> str:
    """Of all that would be uploaded, `""` where there is nothing yet."""
    lot = bundle(trace, masker)
    if lot is None:
        return ""
    digest = hashlib.sha256()
    for path in (*sorted(lot.files), *sorted(lot.kept)):
        digest.update(path.encode() + b"\0" + hashlib.sha256(lot.files.get(path, b"")).digest())
    return digest.hexdigest()


def _client() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi()


def _has_token() -> bool:
    if os.environ.get("HF_TOKEN"):
        return True
    from huggingface_hub import get_token

    return get_token() is not None
