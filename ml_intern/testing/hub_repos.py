"""The local Hub's routes that make, change and take away repositories, and that say who you are."""

import re
from typing import Any, get_args

from starlette.responses import JSONResponse, Response

from ml_intern.testing.hub_card import CardError, parse_card
from ml_intern.testing.hub_http import Call, Routes, object_id
from ml_intern.testing.hub_store import FileEntry, Refused, RepoType, Store

routes = Routes()
_NAME = re.compile(r"[A-Za-z0-9](?!.*(--|\.\.))[A-Za-z0-9._-]{0,95}(?<![.-])(?<!\.git)")
_VISIBILITIES = {
    "model": ("public", "private"),
    "dataset": ("public", "private"),
    "space": ("public", "private", "protected"),
}
_IN_LFS = (
    "7z arrow bin bz2 ckpt ftz gz h5 joblib mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl pt pth rar"
)
_IN_LFS += " safetensors tar tflite tgz wasm xz zip zst gguf"
_MEDIA = "audio pcm sam raw aac flac mp3 ogg wav bmp gif png tiff jpg jpeg webp mp4 webm"


def first_files(store: Store, type: RepoType) -> dict[str, FileEntry]:
    """What a new repository holds: the `.gitattributes` that says which files go to LFS."""
    endings = (_IN_LFS + (" " + _MEDIA if type == "dataset" else "")).split()
    lines = "".join(f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in endings)
    return {".gitattributes": store.entry((lines + "*tfevents* filter=lfs diff=lfs merge=lfs -text\n").encode())}


@routes.add("GET", "/api/whoami-v2")
def whoami(call: Call) -> Response:
    """The user behind the token."""
    user = call.known()
    orgs = [
        {"type": "org", "id": object_id(name), "name": name, "fullname": name, "roleInOrg": "write"}
        for name in user.organizations
    ]
    token = {"displayName": "local", "role": user.role}
    about = {"type": "user", "id": object_id(user.name), "name": user.name, "fullname": user.name, "isPro": False}
    return JSONResponse({**about, "orgs": orgs, "auth": {"type": "access_token", "accessToken": token}})


@routes.add("POST", "/api/repos/create")
def create(call: Call) -> Response:
    """A new repository; 409 with its address where it exists."""
    wish = call.json()
    type = _type(wish)
    namespace = wish.get("organization") or call.known().name
    user, id = call.may_write(namespace), f"{namespace}/{_name(wish)}"
    if type == "space" and not wish.get("sdk"):
        raise Refused(400, 'A Space needs an "sdk"')
    settings = {"visibility": _visibility(type, wish), "sdk": wish.get("sdk") if type == "space" else None}
    with call.hub.store.lock:
        there = call.hub.store.repos.get((type, id))
        if there:
            raise Refused(409, f"You already created this {type} repo", url=call.hub.page(there), id=id)
        repo = call.hub.store.create(type, id, user.name, first_files(call.hub.store, type), **settings)
    return JSONResponse({"url": call.hub.page(repo), "name": id, "id": object_id(type + id)})


@routes.add("DELETE", "/api/repos/delete")
def delete(call: Call) -> Response:
    """Take a repository away."""
    wish = call.json()
    namespace = wish.get("organization") or call.known().name
    repo = call.visible(_type(wish), f"{namespace}/{wish.get('name')}")
    call.may_write(repo.owner)
    call.hub.store.delete(repo)
    return Response("OK")


@routes.add("POST", "/api/repos/move")
def move(call: Call) -> Response:
    """Rename a repository, also into another namespace."""
    wish = call.json()
    repo = call.visible(_type(wish), str(wish.get("fromRepo")))
    namespace, _, name = str(wish.get("toRepo")).partition("/")
    call.may_write(repo.owner)
    call.may_write(namespace)
    call.hub.store.move(repo, f"{namespace}/{_name({'name': name})}")
    return JSONResponse({"url": call.hub.page(repo)})


@routes.add("PUT", "/api/{types}/{repo}/settings")
def settings(call: Call) -> Response:
    """Visibility and gating."""
    repo, _ = call.writable()
    wish = call.json()
    values: dict[str, Any] = {}
    if "visibility" in wish or "private" in wish:
        values["visibility"] = _visibility(repo.type, wish)
    if "gated" in wish:
        if wish["gated"] not in ("auto", "manual", False):
            raise Refused(400, '"gated" must be "auto", "manual" or false')
        values["gated"] = wish["gated"]
    call.hub.store.settings(repo, **values)
    return JSONResponse(values)


@routes.add("POST", "/api/{types}/{repo}/duplicate")
def duplicate(call: Call) -> Response:
    """A copy of the present files under another name."""
    source, wish = call.repo(), call.json()
    namespace, _, name = str(wish.get("repository")).partition("/")
    user = call.may_write(namespace)
    call.check_gate(source)
    id, store = f"{namespace}/{_name({'name': name})}", call.hub.store
    with store.lock:
        there = store.repos.get((source.type, id))
        if there:
            raise Refused(409, f"A {source.type} named {id} exists already", url=call.hub.page(there))
        wish.setdefault("visibility", source.visibility)
        chosen = {"visibility": _visibility(source.type, wish), "sdk": source.sdk}
        repo = store.create(source.type, id, user.name, source.resolve("main").files, **chosen)
    return JSONResponse({"url": call.hub.page(repo)})


@routes.add("POST", "/api/validate-yaml")
def validate_yaml(call: Call) -> Response:
    """Whether the Hub would take a README."""
    try:
        card, _ = parse_card(str(call.json().get("content", "")))
    except CardError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, status_code=400)
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": warnings})


@routes.add("GET", "/api/{types}/{repo}/auth-check")
def may_read(call: Call) -> Response:
    """Whether the user may read the files."""
    call.check_gate(call.repo())
    return JSONResponse({})


@routes.add("GET", "/api/{types}/{repo}/auth-check/write")
def may_write(call: Call) -> Response:
    """Whether the user may change the files."""
    call.writable()
    return JSONResponse({})


def _type(wish: dict[str, Any]) -> RepoType:
    type = wish.get("type") or "model"
    if type not in get_args(RepoType):
        raise Refused(400, f'The local Hub has no repositories of type "{type}"')
    return type


def _name(wish: dict[str, Any]) -> str:
    name = str(wish.get("name") or "")
    if not _NAME.fullmatch(name):
        raise Refused(400, f'"{name}" is not a valid repository name: letters, digits, "-", "_" and ".", at most 96')
    return name


def _visibility(type: str, wish: dict[str, Any]) -> str:
    chosen = wish.get("visibility") or ("private" if wish.get("private") else "public")
    if chosen not in _VISIBILITIES[type]:
        raise Refused(400, f'"visibility" of a {type} must be one of {", ".join(_VISIBILITIES[type])}')
    return chosen
