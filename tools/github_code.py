"""Find example code on GitHub, and read it."""

from typing import Any

from smolagents import Tool


class GithubCodeTool(Tool):
    """Example files of a repository or owner, files and ranges of their lines, repositories of an owner.

    `GITHUB_TOKEN` (or `GH_TOKEN`) is optional: without one there are 60 requests an hour, and code is found by its path;
    with one GitHub's code search is asked as well. `GITHUB_API_URL` is the address (default https://api.github.com).
    Answers are kept in `$XDG_CACHE_HOME/github_code` (or below `~/.cache`) for fifteen minutes, then asked for again with
    their ETag, which GitHub does not count when nothing changed; what a commit names for good. They are used for longer,
    with their age, while it fails.

    What must never happen here: the token at another host than the API's, redirects included; a listing that GitHub cut
    short shown as the whole; a limit that looks like "nothing found".
    """

    name = "github_code"
    description = (
        "Finds example code on GitHub and reads it, for about 60 new requests an hour without a token. 'find': example files "
        "(scripts, notebooks, recipes) of a `repo` or `owner`, best for `query` first. 'read': a file's lines, notebooks as "
        "code; of a folder its entries. 'repositories': an `owner`'s, by stars."
    )
    inputs = {
        "operation": {"type": "string", "description": "find, read or repositories."},
        "repo": {
            "type": "string",
            "description": "'huggingface/trl', or the address of a file (default none).",
            "nullable": True,
        },
        "owner": {"type": "string", "description": "User or organization (default the repo's).", "nullable": True},
        "query": {"type": "string", "description": "Words, as 'grpo vllm' (default none).", "nullable": True},
        "path": {
            "type": "string",
            "description": "File or folder to read, or to find in (default all).",
            "nullable": True,
        },
        "ref": {"type": "string", "description": "Branch, tag or commit (default its main one).", "nullable": True},
        "from_line": {
            "type": "integer",
            "description": "First line (default 1); -20 for the last twenty.",
            "nullable": True,
        },
        "to_line": {"type": "integer", "description": "Last line (default as far as fits).", "nullable": True},
        "limit": {"type": "integer", "description": "Results at most, 1 to 100 (default 15).", "nullable": True},
    }
    output_type = "object"
    # Annotated because smolagents' check of a tool's class takes a plain assignment with a list in it for no literal.
    output_schema: dict = {
        "type": "object",
        "properties": {
            "results": {"type": "array", "description": "{repo, path, size, matched, excerpt, url}, best first."},
            "repositories": {
                "type": "array",
                "description": "{repo, description, stars, language, license, pushed, ...}.",
            },
            "total": {"type": "integer"},
            "complete": {"type": "boolean", "description": "false: GitHub did not list all."},
            "kind": {"type": "string", "description": "text, notebook, folder, binary or link."},
            "entries": {"type": "array", "description": "Of a folder: {path, size} or {path, folder: true}."},
            "text": {
                "type": "string",
                "description": "Lines from_line to to_line; it goes on at next_line, if not null.",
            },
            "requests_left": {"type": "integer", "description": "Until GitHub's limit."},
            "warnings": {"type": "array"},
            "hint": {"type": "string"},
        },
    }
    effects = "read"
    most_characters = 24_000  # of text a call
    most_of_a_line = 4_000
    max_bytes = 30_000_000
    max_seconds = 60
    patience = 20  # seconds without a word

    def __init__(self, model_repo_id=None):
        super().__init__()
        self._state: dict = {}  # shared by copies of the tool: requests left, by resource

    def forward(
        self,
        operation: str,
        repo: str | None = None,
        owner: str | None = None,
        query: str | None = None,
        path: str | None = None,
        ref: str | None = None,
        from_line: int | None = 1,
        to_line: int | None = None,
        limit: int | None = 15,
    ) -> dict:
        limit, first = 15 if limit is None else limit, 1 if from_line is None else from_line
        if operation not in ("find", "read", "repositories"):
            raise ValueError(f"`operation` is find, read or repositories, not {operation!r}.")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 100:
            raise ValueError(f"`limit` is a whole number from 1 to 100, not {limit!r}.")
        for name, value in (("from_line", first), ("to_line", to_line)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value == 0):
                raise ValueError(f"`{name}` is a line number from 1 on, or from -1 back, not {value!r}.")
        if to_line is not None and (to_line < 0 or (first > 0 and to_line < first)):
            raise ValueError(f"`to_line` is a line number from `from_line` on, not {to_line!r}.")
        place = self._place(repo or "", owner or "", path or "", ref or "")
        words, warnings = " ".join((query or "").split()), list[str]()
        if operation == "read":
            if not place["repo"]:
                raise ValueError("`read` needs `repo`, such as 'huggingface/trl', and the `path` of a file in it.")
            answer = self._read(place, first, to_line, warnings)
        elif operation == "repositories":
            if not place["owner"]:
                raise ValueError("`repositories` needs `owner`, such as 'huggingface'.")
            answer = self._repositories(place["owner"], words, limit, warnings)
        else:
            if not place["owner"]:
                raise ValueError("`find` needs `repo`, such as 'huggingface/trl', or `owner`, such as 'huggingface'.")
            answer = self._find(place, words, limit, warnings)
        if warnings:
            answer["warnings"] = answer.get("warnings", []) + warnings
        left = self._state.get("core")
        return answer if left is None else {**answer, "requests_left": left}

    # Finding

    def _find(self, place: dict, query: str, limit: int, warnings: list) -> dict:
        names, complete, rows, paths, partly = [place["repo"]] if place["repo"] else [], True, [], 0, False
        if not names:
            found = self._repositories(place["owner"], query, 3, warnings)["repositories"]
            found = found or self._repositories(place["owner"], "", 3, warnings)["repositories"]
            names = [one["repo"] for one in found]
            warnings.append(f"Looked in {', '.join(names) or 'none'} only: name a `repo` for another.")
        for name in names:
            try:
                about = self._json(f"/repos/{self._quoted(name)}", {}, warnings, "full_name")
                name, main = about["full_name"], about.get("default_branch") or "HEAD"
                tree = self._first_there(place, f"/repos/{name}/git/trees", main, warnings)
                ref = place["ref"] or main
            except FileNotFoundError as error:
                if place["repo"]:
                    raise
                warnings.append(str(error))  # such as an empty one among others
                continue
            complete = complete and not tree.get("truncated")
            blobs = [item for item in tree["tree"] if item["type"] == "blob"]
            paths += len(blobs)
            for item in blobs:
                if place["path"] and not f"{item['path']}/".startswith(place["path"] + "/"):
                    continue
                score, matched = self._score(item["path"], query)
                if score > 0:
                    url = f"{about.get('html_url') or ''}/blob/{self._quoted(ref)}/{self._quoted(item['path'])}"
                    row = {"repo": name, "path": item["path"], "size": item.get("size"), "matched": matched}
                    rows.append((score, {**row, "url": url}))
        if query and self._token():
            coded, partly = self._code(place, query, warnings)
            for rank, row in enumerate(coded):
                same = [one for one in rows if (one[1]["repo"], one[1]["path"]) == (row["repo"], row["path"])]
                score = 45 - rank + (same[0][0] if same else max(self._score(row["path"], "")[0], 0))
                rows = [one for one in rows if one not in same] + [(score, {**(same[0][1] if same else {}), **row})]
        rows = [rows[at] for _, _, at in sorted([(-row[0], row[1]["path"], at) for at, row in enumerate(rows)])]
        # Without words, or where no path has one, only what looks like an example, not all of the source.
        matching = [row for row in rows if row[1]["matched"]]
        chosen = matching or [row for row in rows if row[0] >= 18] or rows
        if partly and not chosen:
            raise ConnectionError(self._gave_up("code", 0))
        shown = [row for _, row in chosen[:limit]]
        answer: dict = {"results": shown, "total": len(chosen), "complete": complete and not partly}
        if not complete:
            answer["hint"] = "GitHub lists only a part of so large a repository: name a folder in `path` with 'read'."
        elif query and not matching:
            answer["hint"] = f"None of {paths:,} paths has a word of {query!r}; these are the examples there are."
            if not self._token():
                answer["hint"] += " With a GITHUB_TOKEN the text of the files is searched as well."
        elif not rows:
            answer["hint"] = f"None of {paths:,} files looks like an example. Read its README.md, or a folder."
        return answer

    def _score(self, path: str, query: str) -> tuple:
        """How much a path looks like an example for some words: a number, and the words that are in it."""
        import re

        parts = path.lower().split("/")
        name, folders = parts[-1], parts[:-1]
        suffix = name.rpartition(".")[2] if "." in name else ""
        score = {"py": 12, "ipynb": 14, "sh": 6, "md": 5, "mdx": 5, "rst": 3, "yaml": 5, "yml": 5, "toml": 2}.get(
            suffix, 0
        )
        if not score and suffix not in ("cu", "cpp", "js", "ts", "rs", "go", "java", "json", "jinja", "txt"):
            return 0, []
        examples = {"examples": 34, "example": 34, "notebooks": 30, "notebook": 28, "tutorials": 30, "tutorial": 28}
        examples |= {
            "cookbook": 30,
            "recipes": 30,
            "scripts": 24,
            "samples": 26,
            "demos": 20,
            "demo": 20,
            "training": 16,
        }
        examples |= {"experiments": 14, "quickstart": 26, "guides": 14, "benchmarks": 8, "docs": 6, "doc": 6}
        score += max([examples.get(folder, 0) for folder in folders] or [0])
        if re.match(
            r"(train|run_|finetune|fine_tune|sft|dpo|grpo|lora|eval|inference|quickstart|main\.|readme)", name
        ):
            score += 8
        low = {"tests", "test", "testing", ".github", "third_party", "vendor", "node_modules", "locale", "i18n"}
        if low.intersection(folders) or name.startswith(("test_", "conftest")) or name in ("__init__.py", "setup.py"):
            score -= 40
        score -= len(folders)
        matched, plain = [], re.sub(r"[^a-z0-9/]", "", path.lower())
        idle = ("a", "an", "and", "the", "with", "for", "of", "in", "on", "to", "how", "using", "example", "examples")
        terms = [re.sub(r"[^a-z0-9]", "", word) for word in query.lower().split() if word not in idle]
        for word in [word for word in dict.fromkeys(terms) if word]:
            stem = re.sub(r"(ing|ed|s)$", "", word) if len(word) > 5 else word
            # `lora` is in `lora_dpo.py`, and less so in `adalora.py`.
            whole = [one for one in re.split(r"[^a-z0-9]+", path.lower()) if one.startswith(stem)]
            if stem in plain:
                there = 18 if stem in re.sub(r"[^a-z0-9]", "", name) else 9
                score, matched = score + there + (14 if whole else 0), [*matched, word]
        if matched and len(matched) == len(set(terms)):
            score += 20
        return score, matched

    def _code(self, place: dict, query: str, warnings: list) -> tuple:
        """What GitHub's code search finds, and whether it gave up before the end; a limit or failure of it is told, as
        paths were looked through already."""
        scope = f"repo:{place['repo']}" if place["repo"] else f"user:{place['owner']}"
        scope += f" path:{place['path']}" if place["path"] else ""
        try:
            accept = "application/vnd.github.text-match+json"
            asked = {"q": f"{query} {scope}", "per_page": "30"}
            found = self._json("/search/code", asked, warnings, "items", accept)
        except (OSError, ValueError) as error:
            warnings.append(f"The text of files was not searched: {error}")
            return [], False
        rows = []
        for item in found["items"]:
            excerpt = " … ".join([one.get("fragment") or "" for one in item.get("text_matches") or []])[:400]
            row = {"repo": item["repository"]["full_name"], "path": item["path"], "matched": query.lower().split()}
            rows.append({**row, "excerpt": " ".join(excerpt.split()), "url": item.get("html_url")})
        if found.get("incomplete_results"):
            warnings.append(self._gave_up("code", len(rows)))
        return rows, bool(found.get("incomplete_results"))

    def _gave_up(self, what: str, count: int) -> str:
        """What is said of a search that GitHub answered from a part of what there is, as it took it too long."""
        by_then = (
            f"{count} found by then" if count else "it found nothing by then, which does not mean that there is none"
        )
        return (
            f"GitHub ({self._api()}) gave up its search for {what} before the end (incomplete_results): {by_then}. "
            "Try again in a minute, or with fewer words."
        )

    def _repositories(self, owner: str, query: str, limit: int, warnings: list) -> dict:
        asked = {"q": f"{query} user:{owner}".strip(), "per_page": str(limit)}
        if not query:
            asked |= {"sort": "stars", "order": "desc"}
        try:
            found = self._json("/search/repositories", asked, warnings, "items")
        except ValueError as error:  # its way to say that there is no such owner
            raise FileNotFoundError(
                f"GitHub ({self._api()}) knows no owner {owner!r}, or hides it: {error}"
            ) from error
        rows = []
        for item in found["items"][:limit]:
            about = {"repo": item["full_name"], "description": item.get("description")}
            about |= {"stars": item.get("stargazers_count"), "language": item.get("language")}
            about |= {"license": (item.get("license") or {}).get("spdx_id"), "pushed": item.get("pushed_at")}
            about |= {"topics": item.get("topics") or [], "archived": bool(item.get("archived"))}
            rows.append({**about, "url": item.get("html_url")})
        answer: dict = {"repositories": rows, "total": found.get("total_count", len(rows))}
        if found.get("incomplete_results"):
            if not rows:
                raise ConnectionError(self._gave_up("repositories", 0))
            warnings.append(self._gave_up("repositories", len(rows)))
            answer["complete"] = False
        if not rows:
            answer["hint"] = (
                f"{owner} has no repository for {query!r}: leave `query` out." if query else "It has none."
            )
        return answer

    # Reading

    def _read(self, place: dict, first: int, last: int | None, warnings: list) -> dict:
        import base64
        import re

        found = self._first_there(place, f"/repos/{self._quoted(place['repo'])}/contents", "", warnings)
        first_of = (found[0] if found else {}) if isinstance(found, list) else found
        now = re.match(r"https?://[^/]+/([^/]+/[^/]+)/", first_of.get("html_url") or "")  # it may have been renamed
        answer = {"repo": now[1] if now else place["repo"], "path": place["path"], "ref": place["ref"] or None}
        if isinstance(found, list):
            rows = [
                {"path": item["path"], "folder": True}
                if item["type"] == "dir"
                else {"path": item["path"], "size": item.get("size")}
                for item in found
            ]
            shown: dict = {"kind": "folder", "entries": rows[:300], "total": len(rows), "complete": len(found) < 1000}
            if len(rows) > 300:
                shown["hint"] = "The first 300 are shown: find the others with 'find'."
            return {**answer, **shown}
        answer |= {"size": found.get("size") or 0, "url": found.get("html_url") or ""}
        if found["type"] != "file":
            hint = (
                f"It is a {found['type']} to {found.get('target') or found.get('submodule_git_url') or 'elsewhere'}."
            )
            return {**answer, "kind": "link", "hint": hint}
        if found.get("encoding") == "base64":
            data = base64.b64decode(found["content"])
        else:  # more than a megabyte
            blob = f"/repos/{self._quoted(place['repo'])}/git/blobs/{found['sha']}"
            data = self._get(blob, {}, "application/vnd.github.raw+json", warnings)
        if data.startswith(b"version https://git-lfs.github.com/spec/v1"):
            return {**answer, "kind": "link", "hint": "It is in Git LFS, of which the API has the pointer only."}
        kind = self._format(data, place["path"])
        if kind:
            return {**answer, "kind": "binary", "format": kind, "hint": "Only text is shown."}
        cells = self._notebook(data) if place["path"].lower().endswith(".ipynb") else None
        text, warning = self._decoded(data)
        if warning:
            warnings.append(warning)
        lines = [line.rstrip("\r") for line in text.split("\n")]
        lines = lines[:-1] if lines and not lines[-1] else lines
        shown = self._part(cells if cells is not None else lines, first, last, True)
        return {**answer, "kind": "text" if cells is None else "notebook", **shown}

    # Shared: reading
    def _part(self, lines: list, first: int, last: int | None, whole: bool) -> dict:
        """A range of lines as far as fits, and where it goes on. `whole`: these are all lines that there are."""
        total = len(lines)
        start = max(total + first, 0) if first < 0 else first - 1
        if start >= total and total:
            end = f"it has {total:,} lines" if whole else f"the first {total:,} lines were fetched"
            raise ValueError(f"There is no line {first:,}: {end}. Choose another `from_line`.")
        stop, text, room, cut = min(last or total, total), [], self.most_characters, 0
        while start + len(text) < stop:
            line = lines[start + len(text)]
            if len(line) > self.most_of_a_line:
                line, cut = f"{line[: self.most_of_a_line]}… [{len(line) - self.most_of_a_line:,} more]", cut + 1
            room -= len(line) + 1
            if room < 0 and text:
                break
            text.append(line)
        end = start + len(text)
        more = end < total or not whole
        answer = {"text": "\n".join(text), "from_line": start + 1, "to_line": end}
        answer |= {"next_line": end + 1 if more else None, "lines": total if whole else None}
        if cut:
            answer["warnings"] = [f"{cut} lines were cut after {self.most_of_a_line:,} characters."]
        return answer

    def _notebook(self, data: bytes) -> list | None:
        """A notebook's cells as lines, with the text of what they put out; `None` where it is no notebook."""
        import json

        try:
            book = json.loads(data)
            lines = []
            cells = book["cells"] if "cells" in book else book["worksheets"][0]["cells"]
            for number, cell in enumerate(cells, 1):
                kind = str(cell["cell_type"])
                lines += [f"# %% [{kind}] {number}", *self._joined(cell.get("source", cell.get("input"))).splitlines()]
                for output in cell.get("outputs") or []:
                    shown = output.get("data") or {}
                    said = self._joined(output.get("text") or shown.get("text/plain"))
                    if output.get("output_type") == "error":
                        said = f"{output.get('ename')}: {output.get('evalue')}"
                    lines += [f"#> {line}" for line in said[:1000].splitlines()] + (
                        ["#> …"] if len(said) > 1000 else []
                    )
                    lines += [f"#> [{name}]" for name in shown if name.startswith("image/")]
                lines.append("")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return None
        return lines

    def _joined(self, value: Any) -> str:
        """A text of a notebook, which may be a list of its lines."""
        return "".join([str(one) for one in value]) if isinstance(value, list) else str(value or "")

    def _format(self, data: Any, name: str) -> str:
        """What a binary file is; empty for text."""
        head = bytes(data[:4096])
        suffix = name.rpartition(".")[2].lower()
        if suffix in ("pkl", "pickle", "joblib", "dill") or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"):
            return "pickle" if head else ""
        if head[:2] == b"PK":
            return "pickle in a zip archive (PyTorch)" if suffix in ("bin", "pt", "pth", "ckpt") else "zip archive"
        for magic, kind in (
            (b"PAR1", "Parquet"),
            (b"GGUF", "GGUF"),
            (b"\x89PNG", "PNG image"),
            (b"\xff\xd8\xff", "JPEG image"),
            (b"\x1f\x8b", "gzip"),
            (b"\x28\xb5\x2f\xfd", "zstandard"),
            (b"ARROW1", "Arrow"),
            (b"\x93NUMPY", "NumPy array"),
            (b"\x89HDF", "HDF5"),
            (b"%PDF", "PDF"),
        ):
            if head.startswith(magic):
                return kind
        if suffix == "safetensors" and head[8:9] == b"{":
            return "safetensors"
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return ""  # UTF-16
        if b"\0" in head:
            return f"binary (.{suffix})"
        try:
            head.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.start < len(head) - 4 and len([one for one in head if one > 127]) > len(head) * 0.3:
                return f"binary (.{suffix})"
        return ""

    def _decoded(self, data: Any) -> tuple:
        """Bytes as text, and a warning where they are not UTF-8."""
        body = bytes(data)
        if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return body.decode("utf-16", "replace"), ""
        try:
            return body.decode("utf-8-sig"), ""
        except UnicodeDecodeError as error:
            if error.start >= len(body) - 4:  # a character that the piece ends in
                return body.decode("utf-8-sig", "replace"), ""
        return body.decode("latin-1"), "It is not UTF-8: it was read as Latin-1."

    # End of shared: reading

    # How it is fetched

    def _first_there(self, place: dict, where: str, main: str, warnings: list) -> Any:
        """Contents, or the tree where `main` is given. An address does not say where the branch ends in
        'feature/x/examples/sft.py': `place` gets the first way to read it that there is."""
        failed: list = []
        for ref, path in place["ways"]:
            if main:
                address, params = f"{where}/{self._quoted(ref or main)}", {"recursive": "1"}
            else:
                address, params = where + (f"/{self._quoted(path)}" if path else ""), {"ref": ref} if ref else {}
            try:
                found = self._json(address, params, warnings, "tree" if main else "type")
            except FileNotFoundError as error:
                failed.append(error)
                continue
            place["ref"], place["path"] = ref, path
            return found
        raise failed[0]

    def _ways(self, inside: str, ref: str, path: str) -> list:
        """What 'main/examples/sft.py' of an address may mean: refs, each with the path below it."""
        import re

        parts = [part for part in re.sub(r"^refs/(heads|tags)/", "", inside).split("/") if part]
        wanted = ref.split("/") if ref else parts[:1]
        # Where there is a branch `main` there is none below it.
        sure = ref or parts[0] in ("main", "master", "HEAD") or re.fullmatch(r"[0-9a-f]{40}", parts[0])
        if sure:
            below = parts[len(wanted) :] if parts[: len(wanted)] == wanted else parts[1:]
            return [["/".join(wanted), path or "/".join(below)]]
        ends = range(1, min(len(parts), 5) + 1)
        return [["/".join(parts[:end]), path or "/".join(parts[end:])] for end in ends]

    def _place(self, repo: str, owner: str, path: str, ref: str) -> dict:
        """Repository, path and ref, also from the address of a file or folder on GitHub's site."""
        import re
        from urllib.parse import unquote

        name, path, ref = repo.strip().removesuffix("/"), path.strip().strip("/"), ref.strip()
        ways = [[ref, path]]
        pages = r"(?:https?://(?:www\.)?github\.com/|git@github\.com:)([\w.-]+/[\w.-]+)(?:/(.*))?$"
        plain = r"https?://raw\.githubusercontent\.com/([\w.-]+/[\w.-]+)(?:/(.*))?$"
        raw = re.match(plain, name)
        found = raw or re.match(pages, name)
        if found:
            name, rest = found[1].removesuffix(".git"), unquote((found[2] or "").split("#")[0].split("?")[0])
            inside = re.match("(.+)$" if raw else r"(?:blob|tree|raw|blame)/(.+)$", rest.strip("/"))
            if inside:
                ways = self._ways(inside[1], ref, path)
        if name and "/" not in name and owner:
            name = f"{owner.strip()}/{name}"
        if name and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise ValueError(f"`repo` is 'owner/name' or an address at github.com, not {repo!r}.")
        who = name.split("/")[0] if name else owner.strip()
        if who and not re.fullmatch(r"[\w.-]+", who):
            raise ValueError(f"`owner` is a user or an organization, such as 'huggingface', not {owner!r}.")
        for _, inner in ways:
            if ".." in inner.split("/"):
                raise ValueError(f"`path` lies in the repository, as 'examples/sft.py', not {inner!r}.")
        return {"repo": name, "owner": who, "path": ways[0][1], "ref": ways[0][0], "ways": ways}

    def _json(self, path: str, params: dict, warnings: list, needs: str, accept: str = "") -> Any:
        """An answer as JSON: an object that has the key `needs`; of contents (`type`) also a list."""
        import json

        return json.loads(self._get(path, params, accept or "application/vnd.github+json", warnings, needs))

    def _get(self, path: str, params: dict, accept: str, warnings: list, needs: str = "") -> bytes:
        """An answer of the API, from the cache or the network: JSON with `needs`, or a file where that is empty."""
        import json
        import re
        from datetime import UTC, datetime
        from time import time

        key = self._cache_key(self._api(), self._token(), path, params, accept)
        kept = self._cached(key, float("inf"))
        # What a commit or a blob's digest names does not change; all else is asked for again with its ETag.
        fixed = re.search(r"/git/(blobs|trees)/[0-9a-f]{40}$", path) or re.fullmatch(
            r"[0-9a-f]{40}", params.get("ref", "")
        )
        if kept and (fixed or kept["age"] < 900):
            return kept["body"]
        try:
            status, headers, body = self._in_time(path, (path, params, accept, kept["data"] if kept else ""))
            if status == 304 and kept:
                body = kept["body"]
            self._check(path, body, needs)
            partly = path.startswith("/search/") and bool(json.loads(body).get("incomplete_results"))
            if partly and kept:
                raise TimeoutError(f"GitHub ({self._api()}) gave up its search before the end (incomplete_results).")
        except (ConnectionError, TimeoutError) as error:
            if not kept:
                raise
            when = datetime.fromtimestamp(time() - kept["age"], UTC).strftime("%Y-%m-%d %H:%M UTC")
            warnings.append(f"As of {when}: {error}")
            return kept["body"]
        if partly:  # asked again it may have time enough
            return body
        self._cache(key, headers.get("etag") or (kept["data"] if kept else ""), body)
        return body

    def _check(self, path: str, body: bytes, needs: str) -> None:
        """Refuses what is no answer to the question, such as a login page: also for a file, which its digest names."""
        import hashlib
        import json

        if needs:
            try:
                answer = json.loads(body)
            except (json.JSONDecodeError, UnicodeDecodeError):
                answer = None
            fits = needs in answer if isinstance(answer, dict) else isinstance(answer, list) and needs == "type"
        else:
            digest = hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
            fits = path.endswith(f"/git/blobs/{digest}")
        if not fits:
            raise ConnectionError(
                f"GitHub ({self._api()}) answered {path} with something else than its API's JSON. Is GITHUB_API_URL its "
                "API, with no proxy or login page before it?"
            )

    def _in_time(self, path: str, asked: tuple) -> tuple:
        """A request in a thread of its own, as time-outs hold for each read only, and not for names that are looked up."""
        from queue import Empty, SimpleQueue
        from threading import Thread

        outcome: SimpleQueue = SimpleQueue()
        Thread(target=self._carry_out, args=(asked, outcome), name=self.name, daemon=True).start()
        try:
            answer = outcome.get(timeout=self.max_seconds * 1.2)  # the request ends by itself before, where it can
        except Empty:
            raise TimeoutError(
                f"GitHub ({self._api()}) did not end its answer to {path} in {self.max_seconds} s. Try again in a minute, "
                "or check the network and GITHUB_API_URL."
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _carry_out(self, asked: tuple, outcome: Any) -> None:
        try:
            outcome.put(self._request(*asked))
        except Exception as error:  # noqa: BLE001 - carried over to the caller's thread, which raises it
            outcome.put(error)

    def _request(self, path: str, params: dict, accept: str, etag: str) -> tuple:
        """Status, headers and body. The token goes to the API's host only, so redirects are followed here."""
        from time import monotonic, sleep
        from urllib.parse import urlencode, urljoin, urlsplit

        import requests

        api, deadline, tries, hops = self._api(), monotonic() + self.max_seconds, 0, 0
        address = api + path + (f"?{urlencode(params)}" if params else "")
        headers = {"Accept": accept, "User-Agent": "github_code"}
        headers |= {"Authorization": f"Bearer {self._token()}"} if self._token() else {}
        headers |= {"If-None-Match": etag} if etag else {}
        while True:
            local = urlsplit(api).hostname in ("localhost", "127.0.0.1", "::1")
            tries, wait, cause, answered = tries + 1, 0.02 if local else 1.0, "", {}
            try:
                # No session and no cookies; `auth` keeps a password for the host in ~/.netrc from being sent.
                with requests.get(
                    address,
                    timeout=(10, self.patience),
                    stream=True,
                    allow_redirects=False,
                    auth=self._as_it_is,
                    headers=headers,
                ) as answer:
                    status, answered = answer.status_code, answer.headers
                    body = self._body(answer, deadline)
            except requests.Timeout:
                status, body, cause = 0, b"", "did not answer in time"
            except requests.RequestException as error:
                broken = isinstance(error, requests.exceptions.ChunkedEncodingError)
                status, body = 0, b""
                cause = "broke off in the middle of its answer" if broken else "cannot be reached"
            if answered.get("x-ratelimit-remaining", "").isdigit():
                self._state[answered.get("x-ratelimit-resource", "core")] = int(answered["x-ratelimit-remaining"])
            if status in (200, 304):
                return status, answered, body
            if status in (301, 302, 307, 308) and answered.get("location"):
                address, hops = urljoin(address, answered["location"]), hops + 1
                there, here = urlsplit(address), urlsplit(api)
                if (there.scheme, there.netloc) != (here.scheme, here.netloc) or hops > 4:
                    raise ConnectionError(
                        f"GitHub ({api}) redirects to {there.scheme}://{there.netloc}, which is not asked: the token is for "
                        "the API only. Check GITHUB_API_URL."
                    )
                tries -= 1
                continue
            soon = answered.get("retry-after", "")
            if status in (403, 429) and soon.isdigit() and int(soon) <= 5 and tries <= 2:
                sleep(int(soon))
                continue
            if status:
                self._explain(status, answered, body, path)
                cause = f"failed (HTTP {status})"
            if tries > 2 or monotonic() + wait > deadline:
                raise ConnectionError(
                    f"GitHub ({api}) {cause} at {path} (tried {tries} times). Try again in a minute, or check the network "
                    "and GITHUB_API_URL."
                )
            sleep(wait)

    def _as_it_is(self, request):
        return request

    def _explain(self, status: int, headers: Any, body: bytes, path: str) -> None:
        """Raises what an answer means; returns where it may pass."""
        import json
        from datetime import UTC, datetime
        from time import time

        try:
            said = str(json.loads(body)["message"]).split("\n")[0][:200]
        except (ValueError, KeyError, TypeError):
            said = f"HTTP {status}"
        who, token = f"GitHub ({self._api()})", bool(self._token())
        more = "" if token else " A GITHUB_TOKEN allows 5,000 requests an hour."
        wait = headers.get("retry-after", "")
        if status in (403, 429) and headers.get("x-ratelimit-remaining") == "0" and not wait:
            reset = headers.get("x-ratelimit-reset", "")
            when = "later"
            if reset.isdigit():
                at = datetime.fromtimestamp(int(reset), UTC).strftime("%H:%M:%S UTC")
                when = f"at {at}, in {max(int(reset) - int(time()), 0) // 60 + 1} minutes"
            limit = headers.get("x-ratelimit-limit", "some")
            raise ConnectionError(
                f"{who} limits requests: the {limit} of this window ({'with' if token else 'without'} a token) are used up "
                f"(HTTP {status}). It answers again {when}.{more}"
            )
        if status == 429 or (status == 403 and (wait or "rate limit" in said.lower())):
            after = f"after {wait} seconds" if wait else "in some minutes"
            raise ConnectionError(f"{who} asks to slow down (HTTP {status}: {said}). Try again {after}.{more}")
        if status == 401:
            raise PermissionError(
                f"{who} refused the token (401: {said}). Set a GITHUB_TOKEN that is valid, or none: public code needs none."
                if token
                else f"{who} asks for a token (401: {said}). Set GITHUB_TOKEN."
            )
        if status in (403, 451):
            raise PermissionError(f"{who} refused {path} ({status}: {said}).{more}")
        if status in (404, 410):
            raise FileNotFoundError(
                f"{who} has nothing at {path} ({said}). Check repo, path and ref, or look with operation='find'"
                + ("." if token else "; if it is private, set a GITHUB_TOKEN that may read it.")
            )
        if status == 409:
            raise FileNotFoundError(f"{who}: {path} ({said}). The repository may be empty.")
        if 400 <= status < 500:
            raise ValueError(f"{who} rejected {path} ({status}: {said}). Change the arguments.")

    def _body(self, answer: Any, deadline: float) -> bytes:
        from time import monotonic

        import requests

        body = bytearray()
        for piece in answer.iter_content(1 << 16):
            body += piece
            if len(body) > self.max_bytes:
                raise ValueError(f"The answer is larger than {self.max_bytes:,} bytes: clone the repository instead.")
            if monotonic() > deadline:
                raise requests.Timeout
        announced = answer.headers.get("content-length", "")
        if announced.isdigit() and not answer.headers.get("content-encoding") and len(body) < int(announced):
            raise requests.exceptions.ChunkedEncodingError
        return bytes(body)

    def _api(self) -> str:
        import os

        return (os.environ.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/")

    def _token(self) -> str:
        import os

        return (os.environ.get("GITHUB_TOKEN") or os.environ.get("GH_TOKEN") or "").strip()

    def _quoted(self, text: str) -> str:
        from urllib.parse import quote

        return quote(text, safe="/")

    # Shared: cache
    def _cache_key(self, address: str, token: str | None, *asked: Any) -> str:
        """The name of an answer: a digest of who was asked, for whom (the token, so that nobody sees another's), and what."""
        import hashlib
        import json

        return hashlib.sha256(json.dumps([address, token or "", *asked], sort_keys=True).encode()).hexdigest()

    def _cached(self, key: str, seconds: float) -> dict | None:
        """An answer kept at most so long ago, as `{data, body, age}`; `None` where there is none, or a damaged one."""
        import json
        from time import time
        from zlib import crc32

        try:
            check, _, held = (self._cache_folder() / key).read_bytes().partition(b"\n")
            if check != b"%08x" % crc32(held):
                return None
            head, _, body = held.partition(b"\n")
            kept = json.loads(head)
        except (OSError, ValueError, RuntimeError):  # RuntimeError: there is no home
            return None
        age = time() - kept["time"]
        return {"data": kept["data"], "body": body, "age": age} if 0 <= age < seconds else None

    def _cache(self, key: str, data: Any, body: bytes = b"") -> None:
        """Keeps an answer: plain data, and bytes. Never a failure. At most 300 answers and 100 MB a tool, oldest out."""
        import contextlib
        import json
        import os
        import tempfile
        from pathlib import Path
        from time import time
        from zlib import crc32

        held = json.dumps({"time": time(), "data": data}).encode() + b"\n" + body
        if len(held) > 64_000_000:
            return
        with contextlib.suppress(OSError, RuntimeError):  # a cache that cannot be written is none
            folder = self._cache_folder()
            handle, name = tempfile.mkstemp(prefix=".", dir=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(b"%08x\n" % crc32(held) + held)
                Path(name).replace(folder / key)
            except OSError:
                Path(name).unlink()
                raise
            files = sorted([(one.stat().st_mtime, one.stat().st_size, one.path) for one in os.scandir(folder)])
            total = sum([size for _, size, _ in files])
            while len(files) > 300 or total > 100_000_000:
                _, size, path = files.pop(0)
                total -= size
                Path(path).unlink(missing_ok=True)

    def _cache_folder(self) -> Any:
        """This user's alone, as answers to other tokens lie in it: `$XDG_CACHE_HOME` (default ~/.cache) / the tool's name."""
        import os
        from pathlib import Path

        home = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = (home if home.is_absolute() else Path.home() / ".cache") / self.name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # refused where it belongs to somebody else, whose answers are not believed
        return folder

    # End of shared: cache
