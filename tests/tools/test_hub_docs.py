"""hub_docs against the local Hub's documentation: Markdown and HTML, contents and sections, two searches in one."""

import json
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import validate
from ml_intern.tools import HubDocsTool
from saving import assert_survives_saving

from ml_intern.testing import Service

CODE = '```python\n# a comment, no heading\nfrom trl import SFTTrainer\n\n## also none\ntrainer = SFTTrainer("m")\n```'
SFT = f"""# SFT Trainer[[sft-trainer]]

Supervised fine-tuning trains on `prompt` and completion.

## Quick start[[quick-start]]

{CODE}

| argument | meaning |
| --- | --- |
| `packing` | several examples in one sequence |

- one [link](/docs/trl/index)
- two

#### trl.SFTConfig[[trl.SFTConfig]]

**Parameters:** packing, max_length.

## Expected dataset type[[expected-dataset-type]]

Conversational or standard.
"""
LONG = "# Reference[[reference]]\n\n" + "\n".join(
    f"## Part {number}[[part-{number}]]\n\n" + f"Words about part {number} that fill a line of the page.\n" * 40
    for number in range(40)
)
PAGES = {
    "index": "# TRL[[trl]]\n\nTransformer reinforcement learning.",
    "sft_trainer": SFT,
    "dpo_trainer": "# DPO Trainer[[dpo]]\n\nPreference data: chosen and rejected.\n\n## Beta[[beta]]\n\nHow far.",
    "how_to/reference": LONG,
}


@pytest.fixture
def docs(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub._hub.docs.clear()
    hub.add_docs("trl", PAGES, older={"v0.9.0": {"sft_trainer": "# Old SFT\n\nAs it was."}})
    hub.add_docs("setfit", {"index": "# SetFit\n\nFew examples.", "tune": SFT}, lists=False, markdown=False)
    hub.add_docs("agents-course", {"unit1/intro": "# Agents\n\nA course."}, category="Courses")
    hub.requests.clear()
    return hub


@pytest.fixture
def tool(docs):
    return HubDocsTool()


def asked(docs):
    return [request.path for request in docs.requests]


class TestReading:
    def test_a_page_as_markdown(self, docs, tool):
        answer = tool(page="trl/sft_trainer")
        validate(answer, HubDocsTool.output_schema)
        assert answer["text"] == SFT.rstrip("\n") + "\n"
        assert CODE in answer["text"]
        assert (answer["title"], answer["url"]) == ("SFT Trainer", f"{docs.url}/docs/trl/sft_trainer")
        assert (answer["from_line"], answer["next_line"], answer["to_line"]) == (1, None, answer["lines"])
        assert asked(docs) == ["/docs/trl/sft_trainer.md"]

    @pytest.mark.parametrize(
        ("page", "more", "name"),
        [
            ("https://huggingface.co/docs/trl/main/en/sft_trainer#quick-start", {}, "trl/main/sft_trainer"),
            ("/docs/trl/sft_trainer.md", {"section": "all"}, "trl/sft_trainer"),
            ("docs/trl/v1.0.0/en/sft_trainer", {}, "trl/v1.0.0/sft_trainer"),
            ("sft_trainer", {"library": "trl"}, "trl/sft_trainer"),
            ("trl/sft_trainer", {"library": "trl", "version": "v0.9.0"}, "trl/v0.9.0/sft_trainer"),
            ("agents-course/unit1/intro", {}, "agents-course/unit1/intro"),
            ("https://huggingface.co/learn/agents-course/unit1/intro", {}, "agents-course/unit1/intro"),
            ("trl", {}, "trl/index"),
        ],
    )
    def test_names_and_addresses(self, tool, page, more, name):
        answer = tool(page=page, **more)
        assert answer["page"] == name
        assert answer["text"]
        if "v0.9.0" in name:
            assert answer["title"] == "Old SFT"
        if "#" in page:
            assert answer["section"] == "Quick start"

    @pytest.mark.parametrize(
        ("section", "first", "last"),
        [
            ("Quick start", "## Quick start[[quick-start]]", "**Parameters:** packing, max_length."),
            ("trl.SFTConfig", "#### trl.SFTConfig[[trl.SFTConfig]]", "**Parameters:** packing, max_length."),
            ("sftconfig", "#### trl.SFTConfig[[trl.SFTConfig]]", "**Parameters:** packing, max_length."),
            (
                "expected-dataset-type",
                "## Expected dataset type[[expected-dataset-type]]",
                "Conversational or standard.",
            ),
            (
                "## Expected dataset",
                "## Expected dataset type[[expected-dataset-type]]",
                "Conversational or standard.",
            ),
        ],
    )
    def test_a_section_with_what_is_below_it(self, tool, section, first, last):
        text = tool(page="trl/sft_trainer", section=section)["text"].strip().split("\n")
        assert (text[0], text[-1]) == (first, last)

    def test_a_long_page_gives_its_contents_and_then_everything(self, docs, tool):
        answer = tool(page="trl/how_to/reference")
        assert list(answer["contents"])[:3] == ["Reference", "Part 0", "Part 1"]
        assert len(answer["contents"]) == 41
        assert len(json.dumps(answer)) < 6000
        assert "text" not in answer
        part = tool(page="trl/how_to/reference", section="Part 7")
        assert abs(answer["contents"]["Part 7"] - len(part["text"]) / 4) < 3
        seen, line = [], 1
        while line is not None:
            answer = tool(page="trl/how_to/reference", section="all", from_line=line)
            assert len(answer["text"]) <= HubDocsTool.most_tokens * 4
            seen += answer["text"].split("\n")
            line = answer["next_line"]
        assert "\n".join(seen).rstrip("\n") == LONG.rstrip("\n")
        assert len(docs.requests) == 1

    def test_a_page_without_markdown_is_read_as_html(self, docs, tool):
        """Headings keep their anchors, code its lines, tables and lists their form; nothing of the site around it."""
        text = tool(page="setfit/tune")["text"]
        assert asked(docs) == ["/docs/setfit/tune.md", "/docs/setfit/tune"]
        assert "# SFT Trainer[[sft-trainer]]" in text
        assert CODE.replace("```python", "```") in text
        assert "| argument | meaning |\n| --- | --- |\n| packing | several examples in one sequence |" in text
        assert "- one [link](/docs/trl/index)\n- two\n" in text
        assert "`prompt` and completion" in text
        for other in ("Copied", "Hugging Face", "Update on GitHub", "var a", "<"):
            assert other not in text
        section = tool(page="setfit/tune", section="trl.SFTConfig")["text"]
        assert section.strip().split("\n")[-1] == "Parameters: packing, max_length."

    def test_what_is_not_there(self, docs, tool):
        with pytest.raises(FileNotFoundError, match=r"no page 'trl/sft_trainr'\. Near it: trl/sft_trainer"):
            tool(page="trl/sft_trainr")
        with pytest.raises(FileNotFoundError, match=r"no documentation of 'trll'\. Near it: trl"):
            tool(page="trll/sft_trainer")
        with pytest.raises(ValueError, match=r"no section 'Slow start'.* Near it: Quick start"):
            tool(page="trl/sft_trainer", section="Slow start")
        with pytest.raises(ValueError, match="999 is not in it"):
            tool(page="trl/sft_trainer", from_line=999)

    @pytest.mark.parametrize(
        "page", ["https://example.org/docs/trl/x", "http://127.0.0.1:1/docs/trl/x", "trl/../../x"]
    )
    def test_only_the_documentation_is_read(self, docs, tool, page):
        with pytest.raises(ValueError, match="is no page"):
            tool(page=page)
        assert docs.requests == []


class TestSearching:
    def test_both_searches_are_merged(self, docs, tool):
        answer = tool(query="SFTTrainer packing", library="trl")
        validate(answer, HubDocsTool.output_schema)
        (first, *_) = answer["results"]
        assert (first["page"], first["library"]) == ("trl/sft_trainer", "trl")
        assert first["url"] == f"{docs.url}/docs/trl/sft_trainer"
        assert "packing" in first["excerpt"]
        assert asked(docs) == ["/api/docs/search?q=sfttrainer+packing&product=trl", "/docs/trl/llms-full.txt"]
        assert tool(page=first["page"])["title"] == "SFT Trainer"

    def test_without_a_library_the_site_searches(self, docs, tool):
        assert [row["page"] for row in tool(query="rejected")["results"]] == ["trl/dpo_trainer"]
        assert asked(docs) == ["/api/docs/search?q=rejected"]
        assert "hint" in tool(query="zeppelin")

    def test_a_site_without_a_search_is_made_up_for(self, docs, tool, monkeypatch, tmp_path):
        docs.fail("/api/docs/search", status=404, times=None)
        answer = tool(query="preference data rejected", library="trl")
        assert answer["results"][0]["page"] == "trl/dpo_trainer"
        docs.fail("/api/docs/search", status=500, times=None)
        answer = HubDocsTool()(query="trl beta")
        assert answer["results"][0]["section"] == "Beta"
        assert "warnings" in answer
        answer = HubDocsTool()(query="dpo trainer")
        assert [row["page"] for row in answer["results"]] == ["trl/dpo_trainer", "trl/sft_trainer"]
        assert "Only titles of transformers, trl," in answer["warnings"][-1]
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
        docs.fail("llms|/index|api/docs$", status=500, times=None)
        with pytest.raises(OSError, match="Or name a `library`"):
            HubDocsTool()(query="something new")

    def test_what_is_documented_elsewhere_is_found_with_its_address(self, docs, tool):
        row = {"text": "Blocks hold components.", "product": "gradio", "heading1": "Blocks"}
        row |= {"source_page_url": "https://www.gradio.app/docs/gradio/blocks", "source_page_title": "Blocks"}
        docs.fail("/api/docs/search", status=200, headers={"content-type": "application/json"}, body=json.dumps([row]))
        (found,) = tool(query="blocks", library="gradio")["results"]
        assert (found["page"], found["library"]) == (row["source_page_url"], "gradio")
        with pytest.raises(ValueError, match="Read it with another tool"):
            tool(page=found["page"])

    def test_a_library_without_a_text_is_searched_by_titles(self, docs, tool):
        assert "warnings" not in tool(query="few", library="setfit")  # the site's search knows all of it
        docs.fail("/api/docs/search", status=404, times=None)
        found = tool(query="tune", library="setfit")
        assert [row["page"] for row in found["results"]] == ["setfit/tune"]
        # That nothing is found in titles is not that there is nothing.
        for answer in (found, tool(query="zeppelin", library="setfit")):
            assert "Of setfit only titles of pages were searched" in answer["warnings"][-1]

    def test_a_text_without_links_is_one(self, docs, tool):
        text = "### DPO Trainer\nhttps://huggingface.co/docs/bare/v1.0.0/dpo.md\n\n# DPO\n\nIt has a beta.\n"
        docs.fail("/api/docs/search", status=404, times=None)
        docs.fail("/docs/bare/llms-full", status=200, headers={"content-type": "text/plain"}, body=text)
        (found,) = tool(query="beta", library="bare")["results"]
        assert found["page"] == "bare/dpo"

    def test_the_better_section_comes_first(self, docs, tool):
        docs.fail("/api/docs/search", status=404, times=None)
        pages = {f"p{number}": f"# Page {number}\n\nA trainer of many words, once." for number in range(50)}
        pages["right"] = "# Gradient checkpointing\n\nTrades compute for memory: gradient_checkpointing=True."
        docs.add_docs("big", pages)
        results = tool(query="how to use gradient checkpointing in the trainer", library="big", limit=3)["results"]
        assert (len(results), results[0]["page"]) == (3, "big/right")

    def test_pages_and_libraries(self, docs, tool):
        assert tool(library="trl")["pages"]["trl/how_to/reference"] == "Reference"
        assert tool(library="setfit")["pages"] == {"setfit/index": "index", "setfit/tune": "tune"}
        assert tool()["libraries"] == {"trl": "Libraries", "setfit": "Libraries", "agents-course": "Courses"}
        with pytest.raises(FileNotFoundError, match="Near it: trl"):
            tool(library="trl2")

    @pytest.mark.parametrize("arguments", [{"limit": 0}, {"from_line": 0}, {"query": "a", "page": "trl/x"}])
    def test_wrong_arguments(self, tool, arguments):
        with pytest.raises(ValueError, match=r"`limit`|`from_line`|Give either"):
            tool(**arguments)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["# a", "## b [[c]]", "text", "```", "```py", "~~~", "    # d", "", "#no", "####### e"]),
        max_size=30,
    )
)
def test_headings_nest_and_are_never_code(lines):
    heads = HubDocsTool()._headings(lines)
    fenced, fence = set(), ""
    for number, line in enumerate(lines):
        if fence:
            fenced.add(number)
            fence = "" if line == fence else fence
        elif line.startswith(("```", "~~~")):
            fence = line[:3]
    for one in heads:
        assert one["line"] not in fenced
        assert lines[one["line"]] in ("# a", "## b [[c]]")
        inside = [other for other in heads if one["line"] < other["line"] < one["end"]]
        assert all(other["level"] > one["level"] for other in inside)
        assert one["end"] == len(lines) or [other for other in heads if other["line"] == one["end"]]


class TestCache:
    def test_repeated_calls_come_from_the_disk(self, docs, tool):
        for arguments in ({"page": "trl/sft_trainer"}, {"query": "beta", "library": "trl"}):
            first = tool(**arguments)
            docs.requests.clear()
            assert HubDocsTool()(**arguments) == first
            started = time.monotonic()
            for _ in range(20):
                tool(**arguments)
            assert (time.monotonic() - started) / 20 < 0.03
            assert docs.requests == []

    def test_what_code_does_to_an_answer_is_not_in_the_next(self, docs, tool):
        first = tool(query="beta", library="trl")
        whole = [dict(row) for row in first["results"]]
        for row in first["results"]:
            row.clear()
        assert tool(query="beta", library="trl")["results"] == whole

    def test_what_is_old_is_asked_for_again_and_used_while_the_site_is_down(self, docs, tool, monkeypatch):
        tool(page="trl/sft_trainer")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 90_000)
        docs.add_docs("trl", PAGES | {"sft_trainer": "# New"})
        docs.fail("sft_trainer", status=500)
        answer = tool(page="trl/sft_trainer")
        assert answer["title"] == "SFT Trainer"
        assert "As of 2" in answer["warnings"][0]
        assert "500" in answer["warnings"][0]
        assert tool(page="trl/sft_trainer")["title"] == "New"

    def test_a_cache_that_cannot_be_written_or_read_is_none(self, docs, tool, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert tool(page="trl/sft_trainer")["text"]
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        tool(page="trl/sft_trainer")
        for file in (tmp_path / "cache" / "hub_docs").iterdir():
            file.write_bytes(b"{broken")
        assert tool(page="trl/sft_trainer")["text"]


def test_no_token_is_sent_to_anyone(docs, tool):
    """The environment has one; the site is asked without it, and so is whom it redirects to."""
    assert os.environ["HF_TOKEN"]
    with Service(docs.app) as other:
        docs.fail("dpo_trainer", status=302, headers={"Location": f"{other.url}/docs/trl/dpo_trainer.md"})
        tool(query="beta", library="trl")
        tool(library="setfit")
        assert tool(page="trl/dpo_trainer")["title"] == "DPO Trainer"
        assert other.requests
        for request in [*docs.requests, *other.requests]:
            assert "authorization" not in request.headers, request.path


@pytest.mark.long
def test_it_survives_saving(docs):
    call = {"page": "setfit/tune", "section": "Quick start"}
    found = assert_survives_saving(HubDocsTool, "huggingface_hub", "lxml", call=call, environment=docs.environment())
    assert "SFTTrainer" in found["text"]
