"""The researcher: a colleague of every session that reads, on a budget of its own, and answers with sources.

What must never happen here: it gets a tool that does more than read; a claim without a source passes for one with a source.
"""

from __future__ import annotations

import copy
import re
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urljoin, urlsplit

from smolagents import LogLevel, Tool, VisitWebpageTool, WebSearchTool

from .agent import InternAgent
from .context import ArtifactStore, ContextManager
from .effects import effects_of
from .execution.egress_reach import is_public
from .models import EndpointModel
from .models.answers import wants_structure
from .prompts import researcher_templates, with_structure
from .secrets import Masker
from .sources import SourceCheck
from .team import Team
from .tools import PaperReadTool

NAME = "researcher"
DESCRIPTION = (
    "Reads papers, data sets, models, documentation and code, and answers a question with a ranked table of recipes: paper, "
    "method, data, settings, reported result, code, each with its source. A list of questions (at most 6) is worked on side by "
    "side. It knows nothing of your work: say the task, the data, the size of model and the compute. It may take minutes."
)
READS = frozenset(
    {
        "arxiv_search", "semantic_scholar_search", "paper_read", "paper_graph", "paper_resources", "hub_search_datasets",
        "hub_search_models", "hub_inspect_dataset", "hub_inspect_model", "hub_list_files", "hub_read_file", "hub_docs",
        "github_code",
    }
)  # fmt: skip
"""The tools of the intern that it has as well."""
STEPS = 30
AT_ONCE, MOST, SHARE = 3, 6, 0.15
REDIRECTS, LARGEST_PAGE = 8, 5_000_000


def researcher(
    tools: Callable[[], Iterable[Any]],
    model: Callable[[], Any],
    *,
    executor_type: str = "local",
    unsafe_local: bool = False,
    context_window: int | None = None,
    at_once: int = AT_ONCE,
) -> Team:
    """The researchers of one session, under one name; each is made when it is first needed.

    Args:
        tools (`Callable[[], Iterable[Tool]]`): Gives tools, of which each takes those that it may have.
        model (`Callable[[], Model]`): Gives a model for each of them.
        executor_type (`str`, defaults to `"local"`), unsafe_local (`bool`, defaults to `False`): As for the session's own code.
        context_window (`int`, *optional*): Tokens that the model reads, in place of what is known of it.
        at_once (`int`, defaults to 3): How many work side by side.
    """

    def make() -> tuple[InternAgent, SourceCheck]:
        check, asked, masker = SourceCheck(), model(), Masker()
        structured = isinstance(asked, EndpointModel) and wants_structure(str(asked.model_id))
        templates = researcher_templates()
        agent = InternAgent(
            [*[_of_found(tool, check) for tool in reading(tools())], *_web(check)],
            asked,
            name=NAME,
            description=DESCRIPTION,
            prompt_templates=with_structure(templates) if structured else templates,
            use_structured_outputs_internally=structured,
            max_steps=STEPS,
            masker=masker,
            context=ContextManager(context_window, store=ArtifactStore(mask=masker.text)),
            executor_type=executor_type,
            executor_kwargs={"network": "none", "unsafe_local": unsafe_local},
            final_answer_checks=[check.mended],
            verbosity_level=LogLevel.OFF,
            return_full_result=False,
        )
        return agent, check

    return Team(NAME, DESCRIPTION, make, at_once, MOST, SHARE, _close)


def _close(agent: Any) -> None:
    if isinstance(agent.model, EndpointModel):
        agent.model.close()


def reading(tools: Iterable[Any]) -> list[Any]:
    """Of these tools the ones that a researcher has: they are known, and whatever they are told to do, they only read."""
    return [
        tool
        for tool in tools
        if tool.name in READS and type(tool).effects == "read" and effects_of(tool, {}) == "read"
    ]


def _of_found(tool: Any, check: SourceCheck) -> Any:
    """The same tool; one that reads any address is kept to those that were found, as [`FoundPageTool`] is, and why."""
    if not isinstance(tool, PaperReadTool):
        return tool
    bound = copy.copy(tool)
    bound.found = check.knows
    return bound


def _web(check: SourceCheck) -> list[Tool]:
    """smolagents' own tools for the web."""
    return [WebSearchTool(), FoundPageTool(check.knows)]


class FoundPageTool(VisitWebpageTool):
    """smolagents' reader of pages, for pages that were found.

    An address that the agent makes up could carry what it has read to whoever wrote to it: so it goes to none that no tool
    returned. And none of an inner network, whatever a page on the way says: redirects are followed here, one by one.

    Args:
        found (`Callable[[str], bool]`): Whether a tool returned this address.
        public (`Callable[[str], bool]`, *optional*): Whether an IP address is one of the internet.
    """

    effects = "read"
    description = (
        "Reads a web page as Markdown. Only pages whose address one of your tools returned, such as `web_search`."
    )

    def __init__(
        self, found: Callable[[str], bool], max_output_length: int = 40_000, public: Callable[[str], bool] = is_public
    ) -> None:
        super().__init__(max_output_length)
        self.found, self.public = found, public

    def forward(self, url: str) -> str:
        from markdownify import markdownify

        if not self.found(url):
            raise ValueError(
                f"{url} is no address that a tool returned: search for the page first, with `web_search`."
            )
        text = markdownify(self._page(url)).strip()
        return self._truncate_content(re.sub(r"\n{3,}", "\n\n", text), self.max_output_length)

    def _page(self, url: str) -> str:
        import requests

        for _ in range(REDIRECTS):
            self._refuse_inner(url)
            try:
                with requests.get(url, timeout=20, stream=True, allow_redirects=False, auth=_nobody) as answer:
                    if answer.is_redirect:
                        url = urljoin(url, answer.headers["location"])
                        continue
                    answer.raise_for_status()
                    connection = answer.raw.connection
                    if connection is not None and connection.sock is not None and not connection.proxy:
                        self._refuse([connection.sock.getpeername()[0]], url)  # a name may lead elsewhere by now
                    body = answer.raw.read(LARGEST_PAGE, decode_content=True)
                    return _decoded(body, answer.headers.get("content-type", ""))
            except (requests.RequestException, OSError) as error:
                raise ConnectionError(f"{url} cannot be read: {error}. Try another source.") from error
        raise ConnectionError(f"{url} redirects without end. Try another source.")

    def _refuse_inner(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url} is no address of a web page.")
        try:
            self._refuse({str(info[4][0]) for info in socket.getaddrinfo(parts.hostname, None)}, url)
        except OSError as error:
            raise ValueError(f"{parts.hostname} cannot be found: {error}. Try another source.") from None

    def _refuse(self, addresses: Iterable[str], url: str) -> None:
        if not all(map(self.public, addresses)):
            raise ValueError(f"{url} lies in an inner network; only public pages are read.")


def _nobody(request: Any) -> Any:
    """Keeps a password for the host in ~/.netrc from being sent."""
    return request


def _decoded(body: bytes, kind: str) -> str:
    named = re.search(r"charset=[\"']?([\w.-]+)", kind) or re.search(
        rb"<meta[^>]+charset=[\"']?([\w.-]+)", body[:2_000]
    )
    name = named[1] if named else "utf-8"
    try:
        return body.decode(name if isinstance(name, str) else name.decode("ascii", "replace"), "replace")
    except LookupError:
        return body.decode("utf-8", "replace")
