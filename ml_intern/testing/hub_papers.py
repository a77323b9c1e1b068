"""The local Hub's papers: pages, their text as Markdown, daily and trending lists, and which repositories name one."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from ml_intern.testing.hub_http import Call, Routes, object_id
from ml_intern.testing.hub_listing import describe
from ml_intern.testing.hub_store import Refused

routes = Routes()
_SHOWN = ("id", "authors", "publishedAt", "title", "summary", "upvotes", "ai_summary", "ai_keywords")
_SHOWN += ("githubRepo", "githubStars", "projectPage")


def paper(
    id: str, title: str, summary: str = "", *, authors: tuple[str, ...] = (), day: str = "", **more: Any
) -> dict[str, Any]:
    """A paper for [`~ml_intern.testing.hub.LocalHub.add_paper`].

    Args:
        id (`str`): Its arXiv id.
        title, summary (`str`): The summary is the abstract.
        authors (`tuple[str, ...]`, *optional*): Their names.
        day (`str`, *optional*): When it was submitted to the daily papers, YYYY-MM-DD; not there without it.
        **more: Fields of the API, such as `githubRepo`, `projectPage`, `upvotes`, `ai_summary`; and `markdown`, its text.
    """
    people = [{"name": name} for name in authors]
    about = {
        "id": id,
        "title": title,
        "summary": summary,
        "authors": people,
        "upvotes": 0,
        "numComments": 0,
        "day": day,
    }
    return about | {"publishedAt": f"{day or '2024-01-01'}T00:00:00.000Z"} | more


def _wrapped(about: dict[str, Any]) -> dict[str, Any]:
    """As lists show a paper."""
    inner = {name: about[name] for name in _SHOWN if name in about}
    return {
        "paper": inner,
        "title": about["title"],
        "publishedAt": about["publishedAt"],
        "numComments": about["numComments"],
    }


def search(call: Call) -> Response:
    """Papers whose title or summary has every word."""
    words = call.one("q").lower().split()
    found = [
        one
        for one in call.hub.papers.values()
        if all(word in f"{one['title']} {one['summary']}".lower() for word in words)
    ]
    return JSONResponse([_wrapped(one) for one in found[: call.number("limit", 120)]])


@routes.add("GET", "/api/papers/{id}")
def info(call: Call) -> Response:
    """One paper; or, at a path that also looks like one, the search for some."""
    if call.params["id"] == "search":
        return search(call)
    about = _known(call)
    return JSONResponse({name: value for name, value in about.items() if name not in ("day", "markdown")})


@routes.add("GET", "/papers/{id}.md")
def text(call: Call) -> Response:
    """The text of a paper as Markdown, where there is one."""
    about = _known(call)
    if not about.get("markdown"):
        raise Refused(404, "No Markdown for this paper")
    return PlainTextResponse(about["markdown"], media_type="text/markdown")


@routes.add("GET", "/api/daily_papers")
def daily(call: Call) -> Response:
    """Papers of a day, week or month, newest first, or by upvotes."""
    day, week, month = call.one("date"), call.one("week"), call.one("month")
    for text, form in ((day, r"\d{4}-\d\d-\d\d"), (week, r"\d{4}-W\d\d"), (month, r"\d{4}-\d\d")):
        if text and not re.fullmatch(form, text):
            raise Refused(400, f'"{text}" is not a valid date')
    found = [one for one in call.hub.papers.values() if one["day"]]
    found = [one for one in found if one["day"].startswith(day or month) and (not week or _week(one["day"]) == week)]
    found.sort(key=lambda one: one["upvotes"] if call.one("sort") == "trending" else one["day"], reverse=True)
    size = call.number("limit", 50)
    start = call.number("p", 0) * size
    return JSONResponse([_wrapped(one) for one in found[start : start + size]])


@routes.add("GET", "/api/arxiv/{id}/repos")
def repos(call: Call) -> Response:
    """What names a paper in its card."""
    tag, answer = f"arxiv:{call.params['id']}", {}
    for type in ("model", "dataset", "space"):
        rows = []
        for repo in call.hub.store.repos.values():
            head = repo.resolve("main")
            if repo.type == type and call.sees(repo) and tag in call.hub.profile(repo, head).tags:
                rows.append(describe(call, repo, head, ["likes", "downloads", "tags"]))
        answer[type + "s"] = rows
    return JSONResponse(answer)


@routes.add("GET", "/api/collections")
def collections(call: Call) -> Response:
    """Collections that hold an item such as `papers/2106.09685`."""
    item = call.one("item") or f"papers/{call.one('paper')}"
    found = [one for one in call.hub.collections if item in one["items"]]
    always = {
        "lastUpdated": "2025-01-01T00:00:00.000Z",
        "private": False,
        "theme": "blue",
        "upvotes": 0,
    }
    shown = []
    for one in found:
        items = [
            {"_id": object_id(name), "id": name.partition("/")[2], "type": "paper", "position": 0}
            for name in one["items"]
        ]
        owner = {"name": one["slug"].partition("/")[0], "type": "user"}
        shown.append({**always, "slug": one["slug"], "title": one["title"], "owner": owner, "items": items})
    return JSONResponse(shown[: call.number("limit", 100)])


def _known(call: Call) -> dict[str, Any]:
    about = call.hub.papers.get(call.params["id"])
    if about is None:
        raise Refused(404, "Paper not found")
    return about


def _week(day: str) -> str:
    year, week, _ = date.fromisoformat(day).isocalendar()
    return f"{year}-W{week:02d}"
