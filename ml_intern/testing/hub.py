"""A Hugging Face Hub on this machine that the unmodified official client cannot tell from the real one."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from starlette.types import Receive, Scope, Send

from ml_intern.testing import (
    hub_discussions,
    hub_docs_pages,
    hub_files,
    hub_jobs,
    hub_listing,
    hub_papers,
    hub_repos,
    hub_uploads,
    viewer,
)
from ml_intern.testing.hub_http import Hub, Routes, User
from ml_intern.testing.hub_store import Repo, RepoType, Store
from ml_intern.testing.serve import Service

__all__ = ["LocalHub", "User"]
TOKEN = "hf_local"
_ROOMS = (
    hub_repos,
    hub_listing,
    hub_files,
    hub_uploads,
    hub_discussions,
    hub_papers,
    hub_docs_pages,
    hub_jobs,
    viewer,
)


class LocalHub(Service):
    """
    A Hub with repositories, LFS, pull requests, jobs and the dataset viewer, kept in a folder.

    Point a client at it with the variables of [`~LocalHub.environment`] (in a new process: the official client reads
    them when it is imported), or with `HfApi(endpoint=hub.url, token=hub.token)`. Uploads of large files need
    `HF_HUB_DISABLE_XET=1`: there is no xet storage here.

    Args:
        data (`Path`): Folder that holds everything, made if missing. What was written survives a restart.
        users (`Mapping[str, str | User]`, *optional*): Token to user. By default `"hf_local"` belongs to `"tester"`.
        port (`int`, *optional*, defaults to 0): 0 takes a free one.

    Raises:
        RuntimeError: If another local Hub has the folder open.

    Example:
        ```python
        with LocalHub(tmp_path) as hub:
            hub.seed("tester/reviews", "dataset", {"train.csv": b"text,label\\ngood,1\\n"})
            HfApi(endpoint=hub.url, token=hub.token).dataset_info("tester/reviews")
        ```
    """

    def __init__(self, data: Path, users: Mapping[str, str | User] | None = None, *, port: int = 0):
        named = users or {TOKEN: "tester"}
        people = {token: User(user) if isinstance(user, str) else user for token, user in named.items()}
        self.data = Path(data)
        self.store = Store(self.data)
        self.jobs = hub_jobs.Jobs((self.data / "jobs").absolute())
        self._hub = Hub(self.store, people, secrets.token_bytes(16), self.jobs)
        self._routes = Routes.join(*(room.routes for room in _ROOMS))
        super().__init__(self._serve, port=port)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._routes.answer(self._hub, scope, receive, send)

    def start(self) -> "LocalHub":
        """Listen; returns once requests are answered."""
        if self.store.closed:
            self.store = self._hub.store = Store(self.data)
        super().start()
        self._hub.url = self.url
        # The same server by another name: clients treat it as the content network it stands for.
        self._hub.cdn = f"http://localhost:{self.port}"
        self.jobs.environment = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1"}
        return self

    def close(self) -> None:
        """End all jobs, stop listening and let go of the folder."""
        self.jobs.close()
        super().close()
        self.store.close()

    @property
    def token(self) -> str:
        """The first user's token."""
        return next(iter(self._hub.users))

    @property
    def viewer_url(self) -> str:
        """Address of the dataset viewer."""
        return self.url + viewer.PREFIX

    def environment(self, token: str | None = None) -> dict[str, str]:
        """
        Variables for a process whose official client is to talk to this Hub and to nothing else.

        Args:
            token (`str`, *optional*): Whose process; the first user's by default.
        """
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": token or self.token,
            "HF_DATASETS_SERVER": self.viewer_url,
            "HF_HOME": str((self.data / "client").absolute()),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1,localhost"))),
        }

    def seed(
        self,
        repo_id: str,
        repo_type: RepoType = "model",
        files: Mapping[str, bytes] | None = None,
        *,
        private: bool = False,
        gated: Literal["auto", "manual", False] = False,
        sdk: str | None = None,
        downloads: int = 0,
        likes: int = 0,
        providers: Sequence[str] = (),
        message: str = "Upload files",
    ) -> Repo:
        """
        Put a repository there without HTTP, or add a commit to the one that is there.

        Args:
            repo_id (`str`): With its namespace, which need not belong to any of the users.
            repo_type (`"model"`, `"dataset"` or `"space"`, *optional*, defaults to `"model"`): Its kind.
            files (`Mapping[str, bytes]`, *optional*): Path to content. Files that would go to LFS go there.
            private (`bool`, *optional*, defaults to `False`): Only the owner sees it.
            gated (`"auto"`, `"manual"` or `False`, *optional*): Who was not admitted may not read its files.
            sdk (`str`, *optional*): Of a Space.
            downloads, likes (`int`, *optional*, defaults to 0): The counters. Nothing else ever changes them.
            providers (`Sequence[str]`, *optional*): Inference providers that serve a model.
            message (`str`, *optional*): Title of the commit.

        Returns:
            `Repo`: Its `refs["refs/heads/main"]` is the commit.
        """
        settings: dict[str, Any] = {"visibility": "private" if private else "public", "gated": gated}
        settings |= {"sdk": sdk, "downloads": downloads, "likes": likes, "providers": list(providers)}
        author = repo_id.partition("/")[0]
        with self.store.lock:
            repo = self.store.find(repo_type, repo_id)
            if repo is None:
                repo = self.store.create(
                    repo_type, repo_id, author, hub_repos.first_files(self.store, repo_type), **settings
                )
            if files:
                head = repo.resolve("main")
                lfs = hub_uploads.lfs_patterns(self.store, head)
                put = {
                    path: self.store.entry(data, lfs=hub_uploads.goes_to_lfs(path, len(data), lfs))
                    for path, data in files.items()
                }
                self.store.commit(repo, "refs/heads/main", message, author, put=put)
        return repo

    def read(self, repo_id: str, repo_type: RepoType, path: str, revision: str = "main") -> bytes:
        """Content of a file, without HTTP and whoever may see it; `KeyError` when it is not there."""
        repo = self.store.repos[repo_type, repo_id]
        return self.store.blobs.read(repo.resolve(revision).files[path].sha256)

    def add_paper(self, id: str, title: str, summary: str = "", **more: Any) -> None:
        """Put a paper's page there until the service ends: see [`~ml_intern.testing.hub_papers.paper`]."""
        self._hub.papers[id] = hub_papers.paper(id, title, summary, **more)

    def add_collection(self, slug: str, title: str, items: list[str]) -> None:
        """Put a collection there until the service ends, of items such as `papers/2106.09685`."""
        self._hub.collections.append({"slug": slug, "title": title, "items": items})

    def add_docs(self, name: str, pages: Mapping[str, str], **more: Any) -> hub_docs_pages.Library:
        """Put a library's documentation there until the service ends: see [`~ml_intern.testing.hub_docs_pages.Library`]."""
        library = self._hub.docs[name] = hub_docs_pages.Library(name, dict(pages), **more)
        return library

    def admit(self, repo_id: str, repo_type: RepoType, user: str) -> None:
        """Let a user (by name) into a gated repository."""
        self.store.admit(self.store.repos[repo_type, repo_id], user)
