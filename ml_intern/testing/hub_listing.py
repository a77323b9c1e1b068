"""The local Hub's routes that find and describe repositories."""

import base64
import json
import math
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse, Response

from ml_intern.testing.hub_card import Profile, eval_results
from ml_intern.testing.hub_http import Call, Routes, object_id
from ml_intern.testing.hub_store import Commit, FileEntry, Refused, Repo, pointer

routes = Routes()
# Parameters that this Hub does not act on: refused, so that nobody takes an unfiltered list for a filtered one.
_UNSUPPORTED = ("datasets", "models", "linked")
_OF_MODELS = ("apps", "inference", "inference_provider", "num_parameters", "pipeline_tag")
_SIZES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_Found = tuple[Repo, Commit]
_ORDERS: dict[str, Callable[[_Found], Any]] = {
    "trendingScore": lambda found: found[0].likes,
    "likes": lambda found: found[0].likes,
    "downloads": lambda found: found[0].downloads,
    "createdAt": lambda found: found[0].date,
    "lastModified": lambda found: found[1].date,
}
# What a list may be asked to show, by which the Hub is stricter than about one repository: no `usedStorage`, say.
_EVERYWHERE = [
    "author",
    "cardData",
    "createdAt",
    "disabled",
    "downloads",
    "downloadsAllTime",
    "gated",
    "lastModified",
    "likes",
    "private",
    "resourceGroup",
    "sha",
    "siblings",
    "tags",
    "trendingScore",
    "xetEnabled",
]
_EXPANDABLE = {
    "models": [
        "config",
        "evalResults",
        "gguf",
        "inference",
        "inferenceProviderMapping",
        "library_name",
        "mask_token",
        "model-index",
        "pipeline_tag",
        "safetensors",
        "spaces",
        "transformersInfo",
        "widgetData",
    ],
    "datasets": ["citation", "description", "mainSize", "paperswithcode_id"],
    "spaces": ["datasets", "models", "region", "runtime", "sdk", "subdomain"],
}
_ALWAYS = ["createdAt", "private", "likes", "downloads", "tags", "pipeline_tag", "library_name", "sdk"]
_DETAILS = ["author", "sha", "lastModified", "gated", "disabled", "description"]


@routes.add("GET", "/api/{types}")
def listing(call: Call) -> Response:
    """Repositories that match, best first, a page at a time."""
    for name in _UNSUPPORTED if call.params["types"] == "models" else (*_UNSUPPORTED, *_OF_MODELS):
        if call.many(name):
            raise Refused(400, f'The local Hub cannot filter by "{name}": leave it out, or filter the answer.')
    sort = call.one("sort") or "trendingScore"
    if sort not in _ORDERS:
        raise Refused(400, f'"sort" must be one of {", ".join(_ORDERS)}')
    order, limit, names = _ORDERS[sort], min(call.number("limit", 1000), 1000), _properties(call)
    with call.hub.store.lock:
        found = sorted(_matching(call), key=lambda one: one[0].id)
        found.sort(key=order, reverse=True)
        if call.one("cursor"):
            # What comes after the last one shown, so that a repository that comes or goes in between shifts nothing.
            try:
                value, last = json.loads(base64.urlsafe_b64decode(call.one("cursor")))
            except ValueError as error:
                raise Refused(400, f'"cursor" is not one that this Hub gave out: {error}') from error
            found = [one for one in found if order(one) < value or (order(one) == value and one[0].id > last)]
        page = found[:limit]
        items = [describe(call, repo, head, names) for repo, head in page]
    headers = {}
    if page and len(found) > limit:
        mark = json.dumps([order(page[-1]), page[-1][0].id]).encode()
        headers = call.next_page(base64.urlsafe_b64encode(mark).decode())
    return JSONResponse(items, headers=headers)


def _matching(call: Call) -> list[_Found]:
    hub, type = call.hub, call.params["types"].removesuffix("s")
    author, words = call.one("author"), " ".join(call.many("search")).lower().split()
    tags = {tag for value in call.many("filter") for tag in value.split(",") if tag}
    task, gated = call.one("pipeline_tag"), call.one("gated")
    least, most = _range(call.one("num_parameters"))
    apps, providers, warm = call.many("apps"), call.many("inference_provider"), call.one("inference")
    found = []
    for repo in hub.store.repos.values():
        if repo.type != type or not call.sees(repo) or (author and repo.owner != author):
            continue
        if any(word not in repo.id.lower() for word in words) or (gated and bool(repo.gated) != call.flag("gated")):
            continue
        head = repo.resolve("main")
        if (warm or providers) and not repo.providers:
            continue
        if providers and not {"all", *repo.providers} & set(providers):
            continue
        if tags or task or apps or most:
            about = hub.profile(repo, head)
            if not tags <= set(about.tags) or (task and task != about.pipeline_tag):
                continue
            if apps and not set(apps) & _apps(about):
                continue
            if most and not least <= (about.safetensors or {"total": -1})["total"] <= most:
                continue
        found.append((repo, head))
    return found


def _range(text: str) -> tuple[float, float]:
    """Bounds of `min:6B,max:128B`; (0, 0) where nothing is asked for."""
    bounds = dict(part.partition(":")[::2] for part in text.split(",") if part)
    try:
        sizes = {name: float(number.rstrip("KMBT")) * _SIZES.get(number[-1:], 1) for name, number in bounds.items()}
    except ValueError as error:
        raise Refused(400, f'"num_parameters" must be such as "min:6B,max:128B", not {text!r}') from error
    if not sizes.keys() <= {"min", "max"}:
        raise Refused(400, f'"num_parameters" must be such as "min:6B,max:128B", not {text!r}')
    return (sizes.get("min", 0.0), sizes.get("max", math.inf)) if sizes else (0.0, 0.0)


def _apps(about: Profile) -> set[str]:
    """Programs that run such a model; the Hub's rules are longer."""
    apps = {"llama.cpp", "ollama", "lmstudio", "jan"} if "gguf" in about.tags else set()
    served = about.pipeline_tag == "text-generation" and "safetensors" in about.tags
    return apps | ({"vllm", "sglang", "tgi"} if served else set())


def _properties(call: Call) -> list[str]:
    """What to show of each repository in a list."""
    if expand := call.many("expand"):
        known = sorted(_EVERYWHERE + _EXPANDABLE[call.params["types"]])
        for place, name in enumerate(expand):
            if name not in known:
                options = "|".join(f'"{one}"' for one in known)
                raise Refused(400, f"Invalid option: expected one of {options} at expand[{place}]")
        return expand
    model, full = call.params["types"] == "models", call.flag("full")
    names = _ALWAYS + (_DETAILS if full or not model else []) + (["siblings"] if full else [])
    names += ["cardData"] if call.flag("cardData") or (full and not model) else []
    return names + (["config"] if call.flag("config") else [])


@routes.add("GET", "/api/{types}/{repo}/revision/{rev}")
@routes.add("GET", "/api/{types}/{repo}")
def info(call: Call) -> Response:
    """One repository."""
    repo = call.repo()
    names = call.many("expand") or [
        *_ALWAYS,
        *_DETAILS,
        "siblings",
        "cardData",
        "config",
        "model-index",
        "safetensors",
    ]
    with call.hub.store.lock:
        return JSONResponse(describe(call, repo, call.commit(repo), names, blobs=call.flag("blobs")))


def describe(call: Call, repo: Repo, commit: Commit, names: list[str], *, blobs: bool = False) -> dict[str, Any]:
    """The properties `names` of a repository, as the API shows them; those that it has not are left out."""
    about = call.hub.profile(repo, commit)
    card = about.card or {}
    values: dict[str, Any] = {
        "author": repo.owner or None,
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": repo.date,
        "private": repo.visibility == "private",
        "gated": repo.gated,
        "disabled": False,
        "downloads": repo.downloads,
        "downloadsAllTime": repo.downloads,
        "likes": repo.likes,
        "trendingScore": repo.likes,
        "tags": about.tags,
        "cardData": about.card,
        "resourceGroup": None,
    }
    if "siblings" in names:
        values["siblings"] = [_sibling(path, file, blobs) for path, file in sorted(commit.files.items())]
    if "mainSize" in names and repo.type == "dataset":
        values["mainSize"] = sum(file.size for file in commit.files.values())
    if "usedStorage" in names:
        sizes = {file.sha256: file.size for past in repo.commits.values() for file in past.files.values()}
        values["usedStorage"] = sum(sizes.values())
    if repo.type == "model":
        values |= {"pipeline_tag": about.pipeline_tag, "library_name": about.library, "config": about.config}
        values |= {"model-index": card.get("model-index"), "safetensors": about.safetensors}
        if "evalResults" in names:
            values["evalResults"] = eval_results(call.hub.store, commit)
        live = [
            {"provider": name, "providerId": repo.id, "status": "live", "task": about.pipeline_tag or ""}
            for name in repo.providers
        ]
        values |= {"inference": "warm" if live else None, "inferenceProviderMapping": live or None}
        values |= {"baseModels": card.get("base_model"), "widgetData": card.get("widget"), "modelId": repo.id}
    elif repo.type == "dataset":
        values["description"] = about.text.strip()[:500]
    else:
        values |= {"sdk": repo.sdk, "subdomain": repo.id.replace("/", "-").lower()}
    shown = {"_id": object_id(repo.type + repo.date + repo.id), "id": repo.id}
    shown |= {"modelId": repo.id} if repo.type == "model" else {}
    return shown | {name: values[name] for name in names if values.get(name) is not None}


def _sibling(path: str, file: FileEntry, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    shown: dict[str, Any] = {"rfilename": path, "size": file.size, "blobId": file.oid}
    if file.lfs:
        shown["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": len(pointer(file.sha256, file.size))}
    return shown
