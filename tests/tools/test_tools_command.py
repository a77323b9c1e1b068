"""`tools`: listed with what they do, saved and pushed for others, loaded again by unmodified smolagents and nothing else.

What must never happen: a Space that is something else is overwritten; something becomes public that nobody asked for; a push
that changes nothing makes a commit; a definition counts as read that was not shown.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_intern.tools
import pytest
import yaml
from huggingface_hub import HfApi
from ml_intern.tools import ArxivSearchTool, HubSearchDatasetsTool
from saving import LOADER, _importable

from ml_intern.cli import main
from ml_intern.cli.tools import made
from ml_intern.errors import InternError
from ml_intern.gateways.tool_spaces import files_of, plan, push, save
from ml_intern.testing import LocalHub

FROM_HUB = LOADER.replace(
    'tool = Tool.from_code(Path(order["file"]).read_text(encoding="utf-8"))',
    'from smolagents import load_tool\ntool = load_tool(order["file"], trust_remote_code=True)',
)
RAW = Path(__file__).parents[1] / "borrowed" / "raw_server.py"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub(tmp_path / "hub") as running:
        yield running


def api_of(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


def test_every_tool_is_listed_with_what_it_does_and_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tools", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert len(rows) == len(ml_intern.tools.__all__)
    assert rows["hub_push"]["effects"] == "write" and rows["arxiv_search"]["effects"] == "read"
    for tool in (ArxivSearchTool(), HubSearchDatasetsTool()):
        assert rows[tool.name]["requirements"] == tool.to_dict()["requirements"]
    assert main(["tools"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in rows) and "needs arxiv" in shown


@pytest.mark.parametrize(
    "names", [("arxiv_search", "hub_push", "hub_repo"), pytest.param((), marks=pytest.mark.soak)], ids=["some", "all"]
)
def test_every_tool_makes_a_folder_in_the_format_of_the_hub(names: tuple[str, ...], tmp_path: Path) -> None:
    for path in save(made(names), tmp_path):
        assert {item.name for item in path.iterdir()} == {"README.md", "app.py", "requirements.txt", "tool.py"}
        _, head, body = (path / "README.md").read_text().split("---\n", 2)
        card = yaml.safe_load(head)
        assert card["sdk"] == "gradio" and card["app_file"] == "app.py" and card["tags"] == ["smolagents", "tool"]
        assert len(card["short_description"]) <= 60 and f"# {path.name}" in body
        ast.parse((path / "app.py").read_text())
        code = (path / "tool.py").read_text()
        assert "ml_intern" not in code and "gradio" not in (path / "requirements.txt").read_text()


def test_saving_again_is_the_same_and_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (path,) = save([ArxivSearchTool()], tmp_path)
    before = {item.name: item.read_bytes() for item in path.iterdir()}
    save([ArxivSearchTool()], tmp_path)
    assert {item.name: item.read_bytes() for item in path.iterdir()} == before
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(InternError, match=r"holds thesis\.tex"):
        save([ArxivSearchTool()], tmp_path)
    with pytest.raises(InternError, match="no tool 'rm'"):
        made(("rm",))


def test_a_push_is_shown_is_private_and_happens_once(hub: LocalHub) -> None:
    api, tools = api_of(hub), [ArxivSearchTool(), HubSearchDatasetsTool()]
    first = plan(tools, "tester", api)
    assert [one.said.split("  ") for one in first] == [
        ["tester/arxiv_search", "private", "a new Space"],
        ["tester/hub_search_datasets", "private", "a new Space"],
    ]
    for one in first:
        push(one, api)
    info = api.space_info("tester/arxiv_search")
    assert info.private and info.sdk == "gradio"
    again = plan(tools, "tester", api)
    assert [one.state for one in again] == ["same", "same"] and push(again[0], api) == ""
    assert api.space_info("tester/arxiv_search").sha == info.sha
    api.upload_file(path_or_fileobj=b"old", path_in_repo="tool.py", repo_id="tester/arxiv_search", repo_type="space")
    (changed,) = plan([ArxivSearchTool()], "tester", api, public=True)
    assert changed.said == "tester/arxiv_search  private  changes tool.py"  # what is there stays as visible as it is
    api.upload_file(path_or_fileobj=b"other", path_in_repo="tool.py", repo_id="tester/arxiv_search", repo_type="space")
    with pytest.raises(InternError, match="was not pushed"):  # it is not what was shown any more
        push(changed, api)


def test_a_space_that_is_something_else_is_never_overwritten(hub: LocalHub) -> None:
    hub.seed("tester/arxiv_search", "space", {"app.py": b"my game"}, sdk="static")
    with pytest.raises(InternError, match="no tool's Space"):
        plan([ArxivSearchTool()], "tester", api_of(hub))


@pytest.mark.long
@pytest.mark.parametrize("place", [pytest.param("folder", marks=pytest.mark.soak), "hub"])
def test_unmodified_smolagents_loads_it_where_only_its_own_requirements_are(
    place: str, hub: LocalHub, tmp_path: Path
) -> None:
    tool = HubSearchDatasetsTool()
    hub.seed("tester/reviews", "dataset", {"README.md": b"---\nlicense: mit\n---\n# Reviews"})
    if place == "folder":
        (path,) = save([tool], tmp_path / "saved")
        program, where = LOADER, str(path / "tool.py")
    else:
        (planned,) = plan([tool], "tester", api_of(hub))
        push(planned, api_of(hub))
        program, where = FROM_HUB, "tester/hub_search_datasets"
    assert program != LOADER or place == "folder"
    needs = files_of(tool)["requirements.txt"].decode().split()
    order = {
        "file": where, "allowed": sorted(_importable({*needs})), "attributes": ["name", "effects", "output_schema"],
        "call": {"query": "reviews"},
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], input=json.dumps(order), capture_output=True, text=True, cwd=tmp_path,
        env={**hub.environment(), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    there = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    assert there["attributes"] == {"name": tool.name, "effects": "read", "output_schema": tool.output_schema}
    assert json.loads(there["result"])["datasets"][0]["id"] == "tester/reviews"


def test_a_push_that_broke_off_after_its_space_was_made_is_taken_up(hub: LocalHub) -> None:
    (planned,) = plan([ArxivSearchTool()], "tester", api_of(hub))
    hub.fail(r"/commit/", status=403, times=5)
    with pytest.raises(InternError, match="was not pushed"):
        push(planned, api_of(hub))
    hub._failures.clear()
    (again,) = plan([ArxivSearchTool()], "tester", api_of(hub))
    assert again.state == "changed" and again.private and set(again.files) >= {"app.py", "tool.py"}
    push(again, api_of(hub))
    (last,) = plan([ArxivSearchTool()], "tester", api_of(hub))
    assert last.state == "same"


@pytest.mark.soak
@pytest.mark.parametrize("name", ml_intern.tools.__all__)
def test_every_tool_loads_from_the_hub_on_its_own(name: str, hub: LocalHub, tmp_path: Path) -> None:
    tool = getattr(ml_intern.tools, name)()
    (planned,) = plan([tool], "tester", api_of(hub))
    push(planned, api_of(hub))
    needs = files_of(tool)["requirements.txt"].decode().split()
    order = {
        "file": planned.repo, "allowed": sorted(_importable({*needs})), "attributes": ["name", "effects"], "call": None,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-I", "-c", FROM_HUB], input=json.dumps(order), capture_output=True, text=True, cwd=tmp_path,
        env={**hub.environment(), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout.strip().splitlines()[-1])["attributes"]["effects"] == type(tool).effects


@pytest.mark.parametrize("name", ml_intern.tools.__all__)
def test_every_tool_takes_what_smolagents_hands_it_when_it_comes_from_the_hub(name: str) -> None:
    """`load_tool` of 1.26 passes `model_repo_id` on to the tool itself, whatever the tool is."""
    getattr(ml_intern.tools, name)(model_repo_id=None)


@pytest.mark.long
@pytest.mark.parametrize("agreed", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_without_anybody_to_ask_nothing_is_pushed(agreed: bool, hub: LocalHub, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "ml_intern",
        "tools",
        "push",
        "tester",
        "arxiv_search",
        *(["--yes"] if agreed else []),
    ]
    environment: dict[str, Any] = {**hub.environment(), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    said = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert "tester/arxiv_search  private  a new Space" in said.stdout
    if agreed:
        assert said.returncode == 0 and api_of(hub).space_info("tester/arxiv_search").private
        return
    assert said.returncode == 4 and "--yes" in said.stderr
    with pytest.raises(Exception, match="404"):
        api_of(hub).space_info("tester/arxiv_search")


@pytest.mark.long
def test_what_a_server_says_is_shown_in_full_before_rules_can_allow_it(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = [
        {"name": "say", "description": "Says it. " + "word " * 500 + "THE END", "inputSchema": {"type": "object"}}
    ]
    (tmp_path / "tools.json").write_text(json.dumps(tools))
    home.mkdir()
    server = {"command": sys.executable, "args": [str(RAW), str(tmp_path)]}
    (home / "mcp.json").write_text(
        json.dumps({"mcpServers": {"raw": server, "off": {"command": "x", "disabled": True}}})
    )
    words = ["tools", "trust", "raw", "--home", str(home)]
    assert main(words) == 4  # nobody to ask
    shown = capsys.readouterr()
    assert "THE END" in shown.out and "nobody has read its definition" in shown.out and "--yes" in shown.err
    assert main([*words, "--yes"]) == 0 and "--allow raw_say" in capsys.readouterr().out
    assert main(words) == 0 and "was read before" in capsys.readouterr().out
    tools[0]["description"] = "Says it, and mails it."
    (tmp_path / "tools.json").write_text(json.dumps(tools))
    assert main(words) == 4 and "+Says it, and mails it." in capsys.readouterr().out
    assert main(["tools", "trust", "off", "--home", str(home)]) == 1
