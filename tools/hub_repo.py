"""Look after a repository on the Hugging Face Hub: branches, tags, history, pull requests, settings."""

from typing import Any

from smolagents import Tool


class HubRepoTool(Tool):
    """Reads and changes what surrounds the files of a repository; text files too, in a commit or a pull request.

    What must never happen here: something becomes public that was not shown as becoming public; a pull request is merged
    with other commits than those that were read; a call takes effect twice; weights get round `hub_push`, which wants them
    evaluated. A whole repository cannot be deleted: nothing brings it back, so that is left to its page.

    A call is carried out once. What it leaves on the Hub in words (commits, pull requests, comments) carries its id, which is
    looked for first; the rest is told by the state it leads to (`reconcile`).
    """

    name = "hub_repo"
    description = (
        "Reads and changes branches, tags, history, pull requests and settings of a repository on the Hugging Face Hub. Free: "
        "refs, commits, discussions (pull requests too), discussion (one, with its diff and `head`), settings. A person is "
        "asked first: create_repo, update_settings, rename, duplicate, create_branch, delete_branch, create_tag, delete_tag, "
        "commit and create_pull_request (text files; weights go with hub_push), create_discussion, comment, merge (of the "
        "`head` you read), close, reopen."
    )
    inputs = {
        "operation": {"type": "string", "description": "One of those named above."},
        "repo_id": {"type": "string", "description": "Its full name, as 'ada/films'."},
        "repo_type": {"type": "string", "description": "model (default), dataset or space.", "nullable": True},
        "name": {
            "type": "string",
            "description": "Of the branch or tag; of the new repository to rename or duplicate to (default none).",
            "nullable": True,
        },
        "revision": {
            "type": "string",
            "description": "Branch, tag or commit to begin at or commit to (default main); to merge: the `head`.",
            "nullable": True,
        },
        "number": {
            "type": "integer",
            "description": "Of the discussion or pull request (default none).",
            "nullable": True,
        },
        "title": {
            "type": "string",
            "description": "Of a discussion, request or commit (default none).",
            "nullable": True,
        },
        "text": {"type": "string", "description": "Description, comment or message (default none).", "nullable": True},
        "files": {"type": "object", "description": "{path: new text} to write (default none).", "nullable": True},
        "delete": {
            "type": "array",
            "description": "Paths to delete, folders with a '/' at their end (default none).",
            "nullable": True,
        },
        "visibility": {
            "type": "string",
            "description": "private, public or, of a Space, protected (default private when new, else as it is).",
            "nullable": True,
        },
        "gated": {"type": "string", "description": "auto, manual or off (default as it is).", "nullable": True},
        "sdk": {"type": "string", "description": "Of a new Space (default gradio).", "nullable": True},
        "limit": {"type": "integer", "description": "Of commits or discussions (default 20).", "nullable": True},
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "url": {"type": "string"},
            "branches": {"type": "object", "description": "{name: commit}, as tags and pull_requests."},
            "commits": {"type": "array", "description": "{commit, title, message, authors, date}, newest first."},
            "discussions": {"type": "array", "description": "{number, title, status, pull_request, author, date}."},
            "discussion": {
                "type": "object",
                "description": "That, events and url; of a request head, conflicts, diff.",
            },
            "settings": {"type": "object", "description": "{visibility, gated, sha, likes, downloads, ...}."},
            "number": {"type": "integer"},
            "commit": {"type": ["string", "null"], "description": "Which was made, or which a deleted ref was at."},
            "before": {"type": "object", "description": "What was changed, as it was; after: as it is now."},
            "after": {"type": "object"},
        },
    }
    effects: dict = {
        "refs": "read",
        "commits": "read",
        "discussions": "read",
        "discussion": "read",
        "settings": "read",
        "create_repo": "write",
        "update_settings": "write",
        "rename": "write",
        "duplicate": "write",
        "create_branch": "write",
        "delete_branch": "write",
        "create_tag": "write",
        "delete_tag": "write",
        "commit": "write",
        "create_pull_request": "write",
        "create_discussion": "write",
        "comment": "write",
        "merge": "write",
        "close": "write",
        "reopen": "write",
    }
    most_of_a_diff = 40_000  # characters

    def __init__(self, model_repo_id=None):
        super().__init__()
        self.call_id = None
        self._planned: tuple = (None, 0.0, {})

    def forward(
        self,
        operation: str,
        repo_id: str,
        repo_type: str | None = "model",
        name: str | None = None,
        revision: str | None = None,
        number: int | None = None,
        title: str | None = None,
        text: str | None = None,
        files: dict | None = None,
        delete: list | None = None,
        visibility: str | None = None,
        gated: str | None = None,
        sdk: str | None = None,
        limit: int | None = 20,
    ) -> dict:
        said: dict = {
            "name": name,
            "revision": revision,
            "number": number,
            "title": title,
            "text": text,
            "files": files,
        }
        said |= {"delete": delete, "visibility": visibility, "gated": gated, "sdk": sdk, "limit": limit}
        wish = self._wish(operation=operation, repo_id=repo_id, repo_type=repo_type, **said)
        answer = {"operation": operation, "repo_id": repo_id, "url": self._url(wish)}
        if self.effects[operation] == "read":
            return {**answer, **self._look(wish)}
        done = self._marked(wish, self.call_id) if self.call_id else None
        return {**answer, **(done or self._act(wish))}

    # What only reads

    def _look(self, wish: dict) -> dict:
        api, where, subject = self._api(), wish["where"], wish["subject"]
        if wish["operation"] == "refs":
            found = self._ask(subject, 30, api.list_repo_refs, **where, include_pull_requests=True)
            kinds = {"branches": found.branches, "tags": found.tags, "pull_requests": found.pull_requests or []}
            return {kind: {one.name: one.target_commit for one in refs} for kind, refs in kinds.items()}
        if wish["operation"] == "commits":
            found = self._history(wish, wish["limit"] + 1)
            rows = [{**one, "message": one["message"][:500]} for one in found[: wish["limit"]]]
            return {"commits": rows, "more": len(found) > wish["limit"]}
        if wish["operation"] == "discussions":
            found = self._ask(subject, 60, self._newest, where=where, count=wish["limit"] + 1)
            return {
                "discussions": [self._row(one) for one in found[: wish["limit"]]],
                "more": len(found) > wish["limit"],
            }
        if wish["operation"] == "discussion":
            return {"discussion": self._discussion(wish)}
        return {"settings": self._state(self._info(wish))}

    def _newest(self, where: dict, count: int) -> list:
        """The latest discussions; the client pages on by itself, so it is stopped."""
        import itertools

        return list(itertools.islice(self._api().get_repo_discussions(**where), count))

    def _history(self, wish: dict, count: int) -> list:
        """The newest commits: `{commit, title, message, authors, date}`. The client's own list is of all there are."""
        from urllib.parse import quote

        where = wish["where"]
        path = f"/api/{where['repo_type']}s/{where['repo_id']}/commits/{quote(wish['revision'] or 'main', safe='')}"
        return self._ask(wish["subject"], 60, self._commits, path=path, count=count)

    def _commits(self, path: str, count: int) -> list:
        from urllib.parse import parse_qsl, urlsplit

        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

        rows, asked = [], {}
        while len(rows) < count:
            response = http_backoff(
                "GET",
                self._hub() + path,
                params=asked,
                headers=build_hf_headers(),
                timeout=20,
                max_retries=1,
                retry_on_status_codes=(502, 503, 504),
            )
            hf_raise_for_status(response)
            page = response.json()
            if not isinstance(page, list):
                raise TypeError("a list of commits was expected")
            for item in page:
                about = {"commit": item["id"], "title": item["title"], "message": item.get("message") or ""}
                rows.append({**about, "authors": [one["user"] for one in item["authors"]], "date": item["date"]})
            # Only the question is taken from the address: mirrors give the Hub's own, and a token goes along.
            following = response.links.get("next", {}).get("url")
            if not following:
                break
            asked = dict(parse_qsl(urlsplit(following).query))
        return rows[:count]

    def _row(self, one: Any) -> dict:
        row = {"number": one.num, "title": one.title, "status": one.status, "pull_request": one.is_pull_request}
        return {**row, "author": one.author, "date": one.created_at.isoformat()}

    def _discussion(self, wish: dict) -> dict:
        one, events, room = self._details(wish), [], 20_000
        kept = {"comment": ("content",), "status-change": ("new_status",), "commit": ("summary", "oid")}
        kept["title-change"] = ("old_title", "new_title")
        for event in one.events:
            about = {"type": event.type, "author": event.author, "date": event.created_at.isoformat()}
            data = {name: vars(event)[name] for name in kept.get(event.type, ())}
            if data.get("content"):
                data["content"] = data["content"][: max(room, 200)] + (
                    "…" if len(data["content"]) > max(room, 200) else ""
                )
                room -= len(data["content"])
            events.append({**about, **data})
        shown = {**self._row(one), "url": one.url, "events": events}
        if one.is_pull_request:
            diff = one.diff or ""
            shown |= {
                "head": self._head(wish),
                "conflicts": one.conflicting_files,
                "merge_commit": one.merge_commit_oid,
            }
            shown["diff"] = diff[: self.most_of_a_diff]
            if len(diff) > self.most_of_a_diff:
                shown["diff_left_out"] = len(diff) - self.most_of_a_diff
        return shown

    def _details(self, wish: dict) -> Any:
        subject = f"discussion {wish['number']} of {wish['subject']}"
        arguments = {**wish["where"], "discussion_num": wish["number"]}
        return self._ask(subject, 30, self._api().get_discussion_details, **arguments)

    def _head(self, wish: dict) -> str | None:
        """The commit that a pull request is at; `None` where the Hub no longer has it."""
        try:
            return self._info(wish, f"refs/pr/{wish['number']}").sha
        except FileNotFoundError:
            return None

    def _info(self, wish: dict, revision: str | None = None) -> Any:
        arguments = {**wish["where"], "revision": revision, "timeout": 20}
        return self._ask(wish["subject"], 30, self._api().repo_info, **arguments)

    def _state(self, info: Any) -> dict:
        about = vars(info)  # a Space has neither gate nor downloads
        state = {"visibility": "private" if info.private else "public", "gated": about.get("gated") or "off"}
        state |= {"revision": info.sha, "likes": info.likes, "downloads": about.get("downloads")}
        for name, value in (("created", info.created_at), ("modified", info.last_modified)):
            state[name] = value.isoformat() if value else None
        return state

    # What a person is shown, and what is refused

    def check(self, **arguments: Any) -> None:
        """Raises where the call would be refused anyway, so that no person is asked in vain."""
        wish = self._wish(**arguments)
        if self.effects[wish["operation"]] == "write":
            problems = self._plan(wish)["problems"]
            if problems:
                raise ValueError(f"hub_repo {wish['operation']} of {wish['subject']} is refused: {' '.join(problems)}")

    def destination(self, **arguments: Any) -> dict | None:
        """Which repository a call changes and who can see it, before or after: the more open of the two."""
        wish = self._wish(**arguments)
        if self.effects[wish["operation"]] == "read":
            return None
        return {"name": wish["target"], "visibility": self._plan(wish)["visibility"]}

    def preview(self, **arguments: Any) -> str:
        """What will happen, in full. A Hub that is down is no obstacle: it says so."""
        wish = self._wish(**arguments)
        if self.effects[wish["operation"]] == "read":
            return ""
        plan = self._plan(wish)
        lines = [f"{wish['operation']}: {self._url(wish)} ({wish['where']['repo_type']}; {plan['state']})"]
        if plan["problems"]:
            lines.append("WILL BE REFUSED: " + " ".join(plan["problems"]))
        lines += ["!! " + flag for flag in plan["flags"]] + plan["lines"]
        # Another's words must not be able to clear the terminal, or to turn what is written round.
        return "".join([c if c.isprintable() or c in "\n\t" else "\ufffd" for c in "\n".join(lines)])

    def _plan(self, wish: dict) -> dict:
        """What a call would do, as things stand: `{state, visibility, problems, flags, lines}`; for half a minute."""
        from time import monotonic

        key = self._key(wish)
        if self._planned[0] == key and monotonic() - self._planned[1] < 30:
            return self._planned[2]
        plan: dict = {"problems": self._leaks(wish), "flags": [], "lines": [], "visibility": "", "state": ""}
        operation, new = wish["operation"], wish["operation"] == "create_repo"
        try:
            info = self._info(wish)
            state = self._state(info)
            plan["visibility"] = state["visibility"]
            plan["state"] = f"{state['visibility']}, gated: {state['gated']}"
            if state["visibility"] == "public":
                plan["state"] = f"PUBLIC: EVERYONE CAN READ IT, gated: {state['gated']}"
        except FileNotFoundError as error:
            info, state = None, {}
            plan["state"] = "does not exist yet"
            if not new:
                plan["problems"].append(str(error))
        except OSError as error:
            info, state = None, {}
            plan["state"] = f"how it stands is unknown: {error}"
            plan["flags"].append("THE HUB COULD NOT BE ASKED WHO CAN SEE IT.")
            plan["visibility"] = (
                wish["visibility"] if wish["visibility"] != "private" or operation == "duplicate" else ""
            )
            plan["visibility"] = plan["visibility"] or ("private" if operation == "duplicate" else "")
            if wish["visibility"] not in (None, "private"):
                plan["flags"].append(f"IT BECOMES {wish['visibility'].upper()}, IF IT IS NOT YET.")
            named = ("name", "revision", "number", "title", "text", "files", "delete", "visibility", "gated")
            plan["lines"] += [f"{key}: {wish[key]}" for key in named if wish[key]]
        if new and info is not None:
            plan["problems"].append(f"{wish['target']} exists already.")
        if new:
            plan["visibility"] = wish["visibility"] or "private"
            plan["lines"].append(f"A new, empty {wish['where']['repo_type']}, {plan['visibility']}.")
            if plan["visibility"] != "private":
                plan["flags"].append("IT WILL BE PUBLIC: EVERYONE CAN READ WHAT IS PUT INTO IT.")
        if info is not None and not plan["problems"]:
            try:
                if operation in ("update_settings", "rename", "duplicate"):
                    self._plan_settings(wish, state, plan)
                elif operation.endswith(("_branch", "_tag")):
                    self._plan_ref(wish, plan)
                elif operation in ("commit", "create_pull_request"):
                    self._plan_commit(wish, plan)
                else:
                    self._plan_talk(wish, plan)
            except FileNotFoundError as error:
                plan["problems"].append(str(error))
            except OSError as error:
                plan["flags"].append(f"NOT ALL OF IT COULD BE LOOKED UP: {error}")
        self._planned = (key, monotonic(), plan)
        return plan

    def _key(self, wish: dict) -> str:
        import json

        return json.dumps([self._hub(), wish], sort_keys=True)

    def _leaks(self, wish: dict) -> list:
        """Says which of the texts that a call would leave on the Hub hold a key; empty where none does."""
        said = {key: wish[key] or "" for key in ("title", "text", "name")}
        leaks = self._secrets({}, {**wish["files"], **said})
        return (
            [f"Keys or passwords in {', '.join(leaks)}. Remove them and revoke them if they are real."]
            if leaks
            else []
        )

    def _plan_settings(self, wish: dict, state: dict, plan: dict) -> None:
        order = ["private", "protected", "public"]
        if wish["operation"] != "update_settings" and self._is_so(wish):
            plan["problems"].append(f"{wish['target']} exists already.")
        if wish["operation"] == "rename":
            plan["lines"].append(f"It will be called {wish['target']}; its old address will lead there.")
            return
        if wish["operation"] == "duplicate":
            new = wish["visibility"] or "private"
            plan["lines"].append(f"A copy of all files of {wish['where']['repo_id']}: {wish['target']}, {new}.")
            if new != "private":
                plan["flags"].append("THE COPY WILL BE PUBLIC: EVERYONE CAN READ IT.")
            if new != "private" and (state["visibility"] == "private" or state["gated"] != "off"):
                plan["flags"].append(f"AND IT COPIES WHAT IS {state['visibility']}, gated: {state['gated']}.")
            plan["visibility"] = new
            return
        wanted = {key: wish[key] for key in ("visibility", "gated") if wish[key]}
        changes = {key: value for key, value in wanted.items() if value != state[key]}
        if not changes:
            plan["problems"].append(
                f"It is {', '.join([f'{key}: {value}' for key, value in wanted.items()])} already."
            )
        plan["lines"] += [f"{key}: {state[key]} -> {value}" for key, value in changes.items()]
        after = changes.get("visibility", state["visibility"])
        if changes.get("visibility") and order.index(after) > order.index(state["visibility"]):
            what = (
                "ITS APP CAN BE USED BY EVERYONE"
                if after == "protected"
                else "EVERYONE CAN READ ALL FILES AND THEIR HISTORY"
            )
            plan["flags"].append(f"IT BECOMES {after.upper()}: {what}.")
        if changes.get("gated") == "off" and after != "private":
            plan["flags"].append("IT IS NO LONGER GATED: EVERYONE CAN READ ALL FILES WITHOUT ASKING.")
        plan["visibility"] = max(after, state["visibility"], key=order.index)

    def _plan_ref(self, wish: dict, plan: dict) -> None:
        """Branches and tags: what they are at, or would be."""
        found = self._ask(wish["subject"], 30, self._api().list_repo_refs, **wish["where"])
        kind = wish["operation"].partition("_")[2]
        refs = {one.name: one.target_commit for one in (found.branches if kind == "branch" else found.tags)}
        there = refs.get(wish["name"])
        if wish["operation"].startswith("create"):
            if there:
                plan["problems"].append(f"The {kind} {wish['name']} exists already, at {there}.")
                return
            commit = self._info(wish, wish["revision"] or "main").sha
            plan["lines"].append(f"The {kind} {wish['name']} at {wish['revision'] or 'main'}, which is {commit}.")
            plan["lines"] += [f"Message: {wish['text']}"] if wish["text"] else []
        elif there is None:
            plan["problems"].append(f"There is no {kind} {wish['name']}.")
        else:
            plan["flags"].append(f"THE {kind.upper()} {wish['name']} WILL BE GONE. It is at {there}.")
            if kind == "branch":
                others = {name: commit for name, commit in refs.items() if name != wish["name"]}
                kept = there in [*others.values(), *[one.target_commit for one in found.tags]]
                plan["lines"].append(
                    "Another ref is at that commit."
                    if kept
                    else "No other ref is at that commit: what only it has is lost."
                )

    def _plan_commit(self, wish: dict, plan: dict) -> None:
        """The difference that a commit makes."""
        import difflib

        now, branch = self._info(wish, wish["revision"]), wish["revision"] or "main"
        kind = "A pull request" if wish["operation"] == "create_pull_request" else f"A commit to {branch}"
        plan["lines"] += [f"{kind}: {wish['title']}", *([wish["text"]] if wish["text"] else []), ""]
        there = {one.rfilename for one in now.siblings or []}
        plan["head"], same = now.sha, 0
        for path in wish["delete"]:
            gone = [name for name in sorted(there) if name == path or (path.endswith("/") and name.startswith(path))]
            if not gone:
                plan["problems"].append(f"There is no {path} to delete at {branch}.")
            plan["flags"] += [f"DELETES {name}" for name in gone[:200]]
            plan["flags"] += [f"AND {len(gone) - 200} MORE FILES IN {path}"] if len(gone) > 200 else []
        for path, new in wish["files"].items():
            old = self._text_of(wish, path, now.sha) if path in there else ""
            if old is None:
                plan["flags"].append(f"{path} IS NO TEXT, OR LARGE, AND IS REPLACED BY {len(new):,} characters.")
            elif old == new and path in there:
                plan["lines"].append(f"{path} stays as it is.")
                same += 1
            sides = ((old or "").splitlines(), new.splitlines())
            label = "on the Hub" if path in there else "(new)"
            plan["lines"] += difflib.unified_diff(*sides, f"{path} {label}", f"{path} new", lineterm="")
        if same == len(wish["files"]) and not wish["delete"]:
            plan["problems"].append("Nothing would change: the files are so already.")

    def _text_of(self, wish: dict, path: str, revision: str) -> str | None:
        """A file as it stands; `None` where it is no text of at most a megabyte."""
        import tempfile
        from pathlib import Path

        found = self._ask(
            wish["subject"], 30, self._api().get_paths_info, **wish["where"], paths=[path], revision=revision
        )
        if not found or found[0].size > 1_000_000:
            return None
        with tempfile.TemporaryDirectory(prefix="hub_repo_") as copy:
            options = {"filename": path, "revision": revision, "local_dir": copy}
            file = self._ask(
                f"{path} of {wish['subject']}", 60, self._api().hf_hub_download, **wish["where"], **options
            )
            try:
                return Path(file).read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                return None

    def _plan_talk(self, wish: dict, plan: dict) -> None:
        """Discussions, and what becomes of a pull request."""
        operation, said = wish["operation"], wish["text"] or ""
        if operation == "create_discussion":
            plan["lines"] += [f"A new discussion: {wish['title']}", said]
            return
        one = self._details(wish)
        kind = "pull request" if one.is_pull_request else "discussion"
        plan["lines"].append(f"The {kind} {one.num}, by {one.author}, is {one.status}: {one.title}")
        plan["lines"] += ["", "Comment:", said] if said else []
        if operation in ("close", "reopen"):
            wrong = {"close": ("closed", "merged"), "reopen": ("open", "draft", "merged")}[operation]
            plan["problems"] += [f"It is {one.status} already."] if one.status in wrong else []
        if operation != "merge":
            return
        if not one.is_pull_request or one.status not in ("open", "draft"):
            plan["problems"].append(f"It is no pull request that is open (a {kind}, {one.status}).")
            return
        head, diff = self._head(wish), one.diff or ""
        if head != wish["revision"]:
            plan["problems"].append(
                f"It is at {head} by now, not at {wish['revision']}: read it again before it is merged."
            )
        if one.conflicting_files:
            plan["problems"].append(f"It conflicts with {one.target_branch}: {one.conflicting_files}.")
        plan["flags"].append(f"IT IS CARRIED OVER TO {one.target_branch or 'main'}, commits up to {head}:")
        plan["lines"] += ["", diff[: self.most_of_a_diff]]
        if len(diff) > self.most_of_a_diff:
            plan["flags"].append(
                f"{len(diff) - self.most_of_a_diff:,} CHARACTERS OF ITS DIFFERENCE ARE NOT SHOWN HERE."
            )

    # What changes something

    def _act(self, wish: dict) -> dict:
        """Carries a call out."""
        if self._leaks(wish):
            raise ValueError(self._leaks(wish)[0])
        api, where, subject, operation = self._api(), wish["where"], wish["subject"], wish["operation"]
        asked, note = (
            f"{operation} of {subject}",
            f"\n\n<!-- ml-intern-call: {self.call_id} -->" if self.call_id else "",
        )
        said = (wish["text"] or "") + note
        if operation == "create_repo":
            extra = {"space_sdk": wish["sdk"] or "gradio"} if where["repo_type"] == "space" else {}
            self._ask(
                asked, 60, api.create_repo, **where, private=(wish["visibility"] or "private") == "private", **extra
            )
            return self._after(wish)
        if operation == "update_settings":
            gated = {"off": False}.get(wish["gated"] or "", wish["gated"])
            before = self._state(self._info(wish))
            settings = {"gated": gated} if gated is not None else {}
            if wish["visibility"] == "protected":
                settings["visibility"] = "protected"
            elif wish["visibility"]:
                settings["private"] = wish["visibility"] == "private"
            self._ask(asked, 60, api.update_repo_settings, **where, **settings)
            return {"before": {key: before[key] for key in ("visibility", "gated") if wish[key]}, **self._after(wish)}
        if operation == "rename":
            names = {"from_id": where["repo_id"], "to_id": wish["target"], "repo_type": where["repo_type"]}
            self._ask(asked, 60, api.move_repo, **names)
            return {"before": {"name": where["repo_id"]}, **self._after(wish)}
        if operation == "duplicate":
            names = {"from_id": where["repo_id"], "to_id": wish["target"], "repo_type": where["repo_type"]}
            private = (wish["visibility"] or "private") == "private"
            self._ask(asked, 120, api.duplicate_repo, **names, private=private)
            return self._after(wish)
        if operation in ("create_branch", "create_tag"):
            kind = operation.partition("_")[2]
            options = {kind: wish["name"], "revision": wish["revision"]}
            options |= {"tag_message": wish["text"]} if kind == "tag" and wish["text"] else {}
            self._ask(asked, 60, api.create_tag if kind == "tag" else api.create_branch, **where, **options)
            return self._after(wish)
        if operation in ("delete_branch", "delete_tag"):
            tag = operation == "delete_tag"
            found = self._look({**wish, "operation": "refs"})["tags" if tag else "branches"]
            name = {"tag" if tag else "branch": wish["name"]}
            self._ask(asked, 60, api.delete_tag if tag else api.delete_branch, **where, **name)
            return {"commit": found.get(wish["name"]), **self._after(wish)}
        if operation in ("commit", "create_pull_request"):
            return self._commit(wish, said)
        if operation == "create_discussion":
            options = {"title": wish["title"], "description": said}
            made = self._ask(asked, 60, api.create_discussion, **where, **options)
            return {"number": made.num, "url": made.url}
        number = {**where, "discussion_num": wish["number"]}
        if operation == "comment":
            self._ask(asked, 60, api.comment_discussion, **number, comment=said)
            return {"number": wish["number"], "url": self._url(wish)}
        comment = {"comment": said} if wish["text"] else {}
        if operation == "merge":
            head = self._head(wish)
            if head != wish["revision"]:
                raise ValueError(f"Not merged: {asked} is at {head} by now, not at {wish['revision']}. Read it again.")
            self._ask(asked, 120, api.merge_pull_request, **number, **comment)
        else:
            status = "closed" if operation == "close" else "open"
            self._ask(asked, 60, api.change_discussion_status, **number, new_status=status, **comment)
        return self._after(wish)

    def _commit(self, wish: dict, said: str) -> dict:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        request = wish["operation"] == "create_pull_request"
        operations: list = [CommitOperationAdd(path, text.encode()) for path, text in wish["files"].items()]
        operations += [CommitOperationDelete(path, is_folder=path.endswith("/")) for path in wish["delete"]]
        if not request and self.call_id:
            said = f"{wish['text'] or ''}\n\nml-intern-call: {self.call_id}".strip()
        # What was shown was the difference to this commit: another one since then must not be overwritten.
        seen = self._planned[2].get("head") if self._planned[0] == self._key(wish) and not request else None
        made = self._ask(
            f"the commit to {wish['subject']}",
            300,
            self._api().create_commit,
            **wish["where"],
            operations=operations,
            commit_message=wish["title"],
            commit_description=said,
            revision=None if request else wish["revision"],
            create_pr=request,
            parent_commit=seen,
        )
        if request and not made.pr_num:
            raise ValueError(f"No pull request was made of {wish['subject']}: its files are so already.")
        answer = {"commit": made.oid, "url": made.pr_url or made.commit_url}
        return {**answer, "number": made.pr_num} if made.pr_num else answer

    def reconcile(self, call_id: str, **arguments: Any) -> dict | None:
        """Whether a call took effect: its result, or `None`. By its id where it left words, else by how things stand."""
        wish = self._wish(**arguments)
        operation = wish["operation"]
        answer = {"operation": operation, "repo_id": wish["where"]["repo_id"], "url": self._url(wish)}
        if operation in ("commit", "create_pull_request", "create_discussion", "comment"):
            done = self._marked(wish, call_id)
        else:
            done = self._after(wish) if self._is_so(wish) else None
        return {**answer, **done} if done else None

    def _is_so(self, wish: dict) -> bool:
        """Whether things stand as a call without words would have left them."""
        operation = wish["operation"]
        if operation in ("create_repo", "rename", "duplicate"):
            try:
                info = self._info({**wish, "where": {**wish["where"], "repo_id": wish["target"]}})
            except FileNotFoundError:
                return False
            return info.id.lower() == wish["target"].lower()
        if operation == "update_settings":
            state = self._state(self._info(wish))
            return not [key for key in ("visibility", "gated") if wish[key] and state[key] != wish[key]]
        if operation.endswith(("_branch", "_tag")):
            refs = self._look({**wish, "operation": "refs"})["tags" if operation.endswith("_tag") else "branches"]
            there, begun = refs.get(wish["name"]), wish["revision"] or ""
            if operation.startswith("delete"):
                return there is None
            # Another's of the same name is none of this call's.
            return there is not None and (len(begun) != 40 or there == begun)
        status = self._details(wish).status
        return status in {"merge": ("merged",), "close": ("closed",), "reopen": ("open", "draft")}[operation]

    def _after(self, wish: dict) -> dict:
        """How things stand after a call that leaves no words."""
        operation = wish["operation"]
        if operation in ("create_repo", "rename", "duplicate", "update_settings"):
            target = {**wish, "where": {**wish["where"], "repo_id": wish["target"]}}
            state = self._state(self._info(target))
            after = {"name": wish["target"], "visibility": state["visibility"], "gated": state["gated"]}
            return {"after": after, "url": self._url(target)}
        if operation.endswith(("_branch", "_tag")):
            refs = self._look({**wish, "operation": "refs"})
            found = refs["tags" if operation.endswith("_tag") else "branches"].get(wish["name"])
            return {"after": {wish["name"]: found}, **({"commit": found} if found else {})}
        one = self._details(wish)
        return {"number": one.num, "after": {"status": one.status}, "commit": one.merge_commit_oid}

    def _marked(self, wish: dict, call_id: str) -> dict | None:
        """What a call left in words: found by its id."""
        operation, mark = wish["operation"], f"ml-intern-call: {call_id}"
        if operation == "commit":
            for one in self._history(wish, 50):
                if mark in one["message"].splitlines():
                    return {"commit": one["commit"], "url": f"{self._url(wish)}/commit/{one['commit']}"}
            return None
        if operation == "comment":
            return {"number": wish["number"]} if self._says(self._details(wish), mark) else None
        if operation not in ("create_pull_request", "create_discussion"):
            return None
        found = self._ask(wish["subject"], 60, self._newest, where=wish["where"], count=30)
        for one in [one for one in found if one.title == wish["title"]]:
            whole = self._details({**wish, "number": one.num})
            if self._says(whole, mark):
                done = {"number": one.num, "url": one.url}
                return {**done, "commit": self._head({**wish, "number": one.num})} if one.is_pull_request else done
        return None

    def _says(self, discussion: Any, mark: str) -> bool:
        texts = [event.content for event in discussion.events if event.type == "comment"]
        return bool([text for text in texts if f"<!-- {mark} -->" in text])

    # What was asked for

    def _wish(self, operation: str, repo_id: str, repo_type: str | None = "model", **said: Any) -> dict:
        """The arguments, put in order; `ValueError` where they make no sense."""
        from huggingface_hub.utils import HFValidationError, validate_repo_id

        if operation not in self.effects:
            raise ValueError(f"`operation` is one of {', '.join(self.effects)}, not {operation!r}.")
        repo_type = repo_type or "model"
        if repo_type not in ("model", "dataset", "space"):
            raise ValueError(f"`repo_type` is model, dataset or space, not {repo_type!r}.")
        keys = ("name", "revision", "number", "title", "text", "visibility", "gated", "sdk")
        wish: dict = {key: said.get(key) or None for key in keys}
        try:
            validate_repo_id(repo_id)
            if "/" not in repo_id:
                raise HFValidationError(f"'owner/name' is needed, not {repo_id!r}.")
            if operation in ("rename", "duplicate"):
                owner = repo_id.split("/")[0]
                wish["name"] = wish["name"] if "/" in (wish["name"] or "") else f"{owner}/{wish['name'] or ''}"
                validate_repo_id(wish["name"])
        except HFValidationError as error:
            raise ValueError(f"`repo_id` or `name`: {error}") from None
        wish |= {"operation": operation, "where": {"repo_id": repo_id, "repo_type": repo_type}}
        wish |= {"subject": f"{repo_type} {repo_id}", "target": repo_id, "limit": said.get("limit") or 20}
        if operation in ("rename", "duplicate"):
            wish["target"] = wish["name"]
        if isinstance(wish["limit"], bool) or not isinstance(wish["limit"], int) or not 1 <= wish["limit"] <= 200:
            raise ValueError(f"`limit` is a whole number from 1 to 200, not {wish['limit']!r}.")
        number = wish["number"]
        if operation in ("discussion", "comment", "merge", "close", "reopen") and (
            isinstance(number, bool) or not isinstance(number, int) or number < 1
        ):
            raise ValueError(f"`{operation}` needs the `number` of a discussion or pull request, not {number!r}.")
        needs = {"create_discussion": ("title",), "create_pull_request": ("title",), "commit": ("title",)}
        needs |= {"comment": ("text",), "merge": ("revision",)}
        needs |= dict.fromkeys(("create_branch", "delete_branch", "create_tag", "delete_tag"), ("name",))
        missing = [key for key in needs.get(operation, ()) if not wish[key]]
        if missing:
            about = " (the `head` of the pull request, as read with 'discussion')" if operation == "merge" else ""
            raise ValueError(f"`{operation}` needs `{missing[0]}`{about}.")
        if operation == "rename" and wish["target"].split("/")[0] != repo_id.split("/")[0]:
            raise ValueError("A repository stays with its owner here: duplicate it, or move it on its page.")
        if operation == "delete_branch" and wish["name"] == "main":
            raise ValueError("The branch main cannot be deleted.")
        if wish["visibility"] not in (None, "private", "public", *(["protected"] if repo_type == "space" else [])):
            raise ValueError(f"`visibility` is private or public, not {wish['visibility']!r}.")
        if wish["gated"] not in (None, "auto", "manual", "off"):
            raise ValueError(f"`gated` is auto, manual or off, not {wish['gated']!r}.")
        if operation == "update_settings" and not (wish["visibility"] or wish["gated"]):
            raise ValueError("`update_settings` needs `visibility` or `gated`.")
        if wish["visibility"] == "protected" and operation in ("create_repo", "duplicate"):
            raise ValueError("A new Space is private or public here; protect it with update_settings.")
        if wish["gated"] and operation == "update_settings" and repo_type == "space":
            raise ValueError("A Space cannot be gated.")
        if wish["title"] and not 3 <= len(wish["title"].strip()) <= 200:
            raise ValueError("`title` has 3 to 200 characters.")
        return {**wish, **self._changes(operation, said.get("files") or {}, said.get("delete") or [])}

    def _changes(self, operation: str, files: Any, delete: Any) -> dict:
        """The files to write and to delete, looked through."""
        import re

        delete = [delete] if isinstance(delete, str) else list(delete)
        if operation not in ("commit", "create_pull_request"):
            return {"files": {}, "delete": []}
        if not isinstance(files, dict) or [1 for path, text in files.items() if not isinstance(text, str)]:
            raise ValueError("`files` is {path: new text}. Weights and other binary files go with hub_push.")
        if not files and not delete:
            raise ValueError(f"`{operation}` needs `files` or `delete`.")
        if len(files) > 50 or sum([len(text) for text in files.values()]) > 2_000_000:
            raise ValueError("`files` are at most 50, 2,000,000 characters in all. More goes with hub_push.")
        for path in [*files, *delete]:
            parts = str(path).rstrip("/").split("/")
            if not isinstance(path, str) or not parts[0] or {"", ".", "..", ".git"}.intersection(parts):
                raise ValueError(f"{path!r} is no path in a repository, such as 'README.md'.")
        weights = [
            path for path in files if re.search(r"\.(safetensors|bin|pt|pth|ckpt|pkl|joblib|onnx|gguf|h5)$", path)
        ]
        if weights or [path for path in files if path.endswith("/")]:
            raise ValueError(f"{[*weights, *files][0]} is no text file. Weights go with hub_push.")
        return {"files": dict(files), "delete": delete}

    def _url(self, wish: dict) -> str:
        where = wish["where"]
        folder = "" if where["repo_type"] == "model" else where["repo_type"] + "s/"
        base = f"{self._hub()}/{folder}{where['repo_id']}"
        return f"{base}/discussions/{wish['number']}" if wish["number"] else base

    # Shared: writing
    def _secrets(self, paths: dict, texts: dict) -> list:
        """Names of what looks like it holds a key: by file name, by the form of known keys, by this host's own."""
        import os
        import re

        names = r"(^|/)(\.env(\.(?!example|sample|template)[^/]+)?|id_(rsa|dsa|ecdsa|ed25519)|[._]netrc"
        names += r"|\.git-credentials|\.pypirc)$"
        # Each begins with plain letters, for which `re` looks twenty times faster than for all of them in one pattern.
        forms = [rb"hf_(?<=\bhf_)[A-Za-z0-9]{30,}", rb"sk-(?<=\bsk-)([A-Za-z0-9]{20}|(proj|ant|or|svcacct)-[\w-]{20})"]
        forms += [rb"A(?<=\bA)(KI|SI)A[0-9A-Z]{16}\b", rb"gh(?<=\bgh)[pousr]_[A-Za-z0-9]{36}"]
        forms += [rb"gith(?<=\bgith)ub_pat_\w{40}", rb"xox(?<=\bxox)[abeprs]-[A-Za-z0-9-]{20}"]
        forms += [rb"AIza(?<=\bAIza)[\w-]{35}", rb"-----BEGIN ([A-Z]+ )*PRIVATE KEY-----"]
        own = [value for key, value in os.environ.items() if re.search(r"(TOKEN|KEY|SECRET|PASSWORD)$", key)]
        forms += [re.escape(value.encode()) for value in own if len(value) >= 12]
        keys = [re.compile(form) for form in forms]
        leaks = [name for name, text in texts.items() if [key for key in keys if key.search(text.encode())]]
        for name, path in paths.items():
            with path.open("rb") as file:
                tail, chunk, leak = b"", file.read(4_000_000), re.search(names, name)
                while chunk and not leak:
                    chunk = tail + chunk
                    leak = [key for key in keys if key.search(chunk)]
                    tail, chunk = chunk[-500:], file.read(4_000_000)
            if leak:
                leaks.append(name)
        return leaks

    def _api(self) -> Any:
        import os

        from huggingface_hub import HfApi, constants

        endpoint = self._hub()
        if endpoint != "https://huggingface.co" and "HF_HUB_DISABLE_XET" not in os.environ:
            # A Hub of one's own mostly has no xet storage, and the client no longer asks: it would fail at the first
            # large file. It read the variable when it was imported (smolagents does that), so its constant is set.
            constants.HF_HUB_DISABLE_XET = True
        return HfApi(endpoint=endpoint)

    # End of shared: writing

    # Shared: hub
    def _hub(self) -> str:
        import os

        return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    def _ask(self, subject: str, seconds: float, call: Any, **arguments: Any) -> Any:
        """Calls the Hub's client; what goes wrong becomes one or two lines and the nearest builtin error.

        The client sets no time-out on most calls, repeats failing ones for half a minute and sleeps for as long as a
        `Retry-After` says: so each call gets a thread, left behind after `seconds`. Where the Hub limits requests and asks
        for half a minute or less, the call is made again after that, twice at most. The same in every tool of the Hub.
        """
        import json
        import queue
        import threading
        import time

        from huggingface_hub import errors

        ends, tries, wait = time.monotonic() + seconds, 0, ""
        while tries < 3:
            answers = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(answers, call, arguments), daemon=True).start()
            try:
                answer, error = answers.get(timeout=max(ends - time.monotonic(), 0))
            except queue.Empty:
                answer, error = None, TimeoutError(f"no end after {seconds:.0f} s")
            if error is None:
                return answer
            if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
                error = error.__cause__  # "not in the cache" hides why the Hub did not give it
            tries, wait = tries + 1, self._limited(error)
            pause = max(int(wait), 0.5) if wait.isdigit() else 3600
            if pause > 30 or time.monotonic() + pause >= ends or tries == 3:
                break
            time.sleep(pause)
        status, said, kind = 0, str(error).strip().split("\n")[0][:200], ConnectionError
        if isinstance(error, errors.HfHubHTTPError):
            status = error.response.status_code
            said = f"{status}: {(error.server_message or said).splitlines()[0][:200]}"
        if isinstance(error, errors.GatedRepoError):
            kind, text = (
                PermissionError,
                f"gates {subject}. Accept its conditions on its page as the owner of HF_TOKEN.",
            )
        elif isinstance(error, errors.RevisionNotFoundError | errors.EntryNotFoundError):
            kind, text = FileNotFoundError, f"has no such revision or file of {subject} ({said}). Check `revision`."
        elif isinstance(error, errors.RepositoryNotFoundError):
            kind, text = FileNotFoundError, f"knows no {subject}, or hides it from you ({status}). "
            text += "Check its name and type; if it is private, set an HF_TOKEN that may read it."
        elif isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403):
            kind, text = PermissionError, f"refused {subject} ({said}). Set an HF_TOKEN that is valid and allowed to."
        elif status == 429:
            text = (
                f"limits your requests (429) at {subject}. Try again {f'after {wait} seconds' if wait else 'later'}."
            )
        elif status >= 500:
            text = f"failed at {subject} ({said}). Try again in a minute."
        elif status:
            kind, text = ValueError, f"rejected {subject} ({said}). Change the arguments."
        elif isinstance(error, TimeoutError):
            kind, text = (
                TimeoutError,
                f"hangs, or holds back, {subject} ({said}). Check that it is up, then try again.",
            )
        elif isinstance(error, errors.HTTPError):  # httpx's in huggingface_hub 1.x, httpx2's in 2.x
            text = f"cannot be reached, or broke off, at {subject} ({type(error).__name__}: {said}). "
            text += "Check the network and HF_ENDPOINT, then try again."
        elif isinstance(error, json.JSONDecodeError | UnicodeDecodeError | KeyError | TypeError | AttributeError):
            text = f"answered {subject} with something else than its API's JSON ({said}). "
            text += "Is HF_ENDPOINT a Hub, with no proxy or login page before it?"
        else:
            raise error
        raise kind(f"The Hub ({self._hub()}) {text}") from error

    def _limited(self, error: Any) -> str:
        """The seconds that the Hub asks to wait where it limits requests, or when; empty where it does not say."""
        import re

        answer: Any = getattr(error, "response", None)
        if getattr(answer, "status_code", 0) != 429:
            return ""
        waits = re.findall(r"\bt=(\d+)", answer.headers.get("RateLimit", ""))  # the Hub's own way to say it
        return str(answer.headers.get("Retry-After") or "".join(waits[:1]))

    def _work(self, answers: Any, call: Any, arguments: dict) -> None:
        try:
            answers.put((call(**arguments), None))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for it, which raises it
            answers.put((None, error))

    # End of shared: hub
