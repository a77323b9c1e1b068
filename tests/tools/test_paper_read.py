"""paper_read against the local arXiv, ar5iv and Hub pages: every part reachable, nothing lost, no failure mistaken."""

import html
import random
import re
import socket
import time
from pathlib import Path

import lxml.html
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_intern.tools import PaperReadTool
from saving import assert_survives_saving
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from ml_intern.testing import LocalArxiv, Service
from ml_intern.testing.arxiv import Paper
from ml_intern.testing.papers import Part, latexml, long_paper, pdf

SAMPLE = (Path(__file__).parent / "papers" / "sample.html").read_text(encoding="utf-8")
LONG, SENTENCES = long_paper(100)
DAY = "2024-05-01T00:00:00Z"
MARKDOWN = """# A Paper in Markdown

## 1 Introduction
Some words with $x^2$.

```python
# no heading
```

## 2 Results

| a | b |
|---|---|
| 1 | 2 |

Table 1: The results.

## References
[1] One.
[2] Two.
"""
TEXT_PDF = pdf(
    [
        ["On Plain Files", "Abstract", "We do little."],
        ["1 Introduction", "It begins.", "1.1 Motivation", "Why not.", "3 of 10 runs fail and so on"],
        ["2 Method", "Figure 1: A drawing", "of something.", "References", "[1] One."],
    ]
)
MARKED_PDF = pdf(
    [["Marked", "INTRODUCTION", "Hello."], ["Method", "Bye."], ["More", "Last."]],
    "A Marked PDF",
    [("1 Introduction", 0), ("2 Method", 1), ("2.1 More", 2)],
)


def paper(id: str, title: str = "A Title", **more) -> Paper:
    return Paper(id, title, ["A. Author"], "What it is about.", ["cs.LG"], DAY, DAY, **more)


@pytest.fixture(scope="module")
def service():
    with LocalArxiv() as service:
        for id in ("2405.00001", "2405.00002", "2405.00003", "2405.00004", "2405.00005", "hep-th/9901001"):
            service.add(paper(id, version=2))
        service.add(paper("2405.00009", comment="This paper has been withdrawn by the author: an error in Lemma 2"))
        service.publish("2405.00001", html=SAMPLE)
        service.publish("2405.00002", html=LONG)
        service.publish("2405.00003", ar5iv=SAMPLE)
        service.publish("hep-th/9901001", pdf=TEXT_PDF)
        service.publish("2405.00005", pdf=MARKED_PDF)
        yield service


@pytest.fixture(scope="module")
def hub_pages():
    def page(request):
        found = request.path_params["id"] == "2405.00004.md"
        return PlainTextResponse(MARKDOWN, media_type="text/markdown") if found else Response(status_code=404)

    with Service(Starlette(routes=[Route("/papers/{id:path}", page)])) as pages:
        yield pages


@pytest.fixture
def arxiv(service, hub_pages, monkeypatch, tmp_path):
    for name, value in service.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_ENDPOINT", hub_pages.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for one in (service, hub_pages):
        one.requests.clear()
        one._failures.clear()
    return service


@pytest.fixture
def read(arxiv):
    return PaperReadTool()


def everything(read, name: str, part: str = "all") -> tuple[list[str], int]:
    """All lines of a part, range by range."""
    lines, calls, at = [], 0, None
    while True:
        answer = read(name, part=part, from_line=at)
        lines += answer["text"].split("\n")
        assert len(answer["text"]) <= 24_000
        calls += 1
        at = answer["next_line"]
        if at is None:
            return lines, calls
        assert at == answer["to_line"] + 1


class TestParts:
    def test_the_contents_come_first(self, read):
        answer = read("arXiv:2405.00001")
        assert answer["title"] == r"Étalonnage of Müller Networks: a Study in $\beta$-Calibration"
        assert answer["authors"] == ["Zoë Åkesson", "李 明"]
        assert list(answer["contents"]) == [
            "Abstract",
            "1 Introduction",
            "2 Method",
            "2.1 Temperature",
            "2.2 Why it works",
            "3 Experiments",
            "Setup.",
            "References",
            "Appendix A Details",
            "A.1 Hyper-parameters",
        ]
        assert answer["contents"]["2 Method"] > answer["contents"]["2.1 Temperature"] > 20
        assert answer["counts"] == {"tables": 1, "figures": 1, "algorithms": 1, "references": 2}
        assert answer["source"]["kind"] == "html"
        assert answer["source"]["url"].endswith("/html/2405.00001")
        assert "warnings" not in answer

    @pytest.mark.parametrize(
        ("part", "start", "holds"),
        [
            ("abstract", "## Abstract", "by a temperature $T>0$ and cut"),
            (
                "1",
                "## 1 Introduction",
                "[1, 2]. [footnote 1: Code: our repository (https://example.org/mueller/calib).]",
            ),
            ("Section 2.1", "### 2.1 Temperature", r"$$ p_{k}=\frac{\exp(z_{k}/T)}{\sum_{j}\exp(z_{j}/T)}. $$ (1)"),
            (
                "S2.SS1",
                "### 2.1",
                r"$$ \frac{\partial L}{\partial T} =-\frac{1}{T^{2}}\sum_{k}z_{k}(y_{k}-p_{k}) $$ (2)",
            ),
            ("method", "## 2 Method", "The loss is convex in $1/T$."),
            ("why it", "### 2.2 Why it works", "Theorem 1."),
            ("appendix a", "## Appendix A", r"weight decay $5\cdot 10^{-4}$"),
            ("A.1", "### A.1", "Batch size 128"),
            ("Setup", "### Setup.", "ten epochs"),
            (
                "table 1",
                "Table 1: Expected",
                "| Müller-8 \\| wide | 4.1 | 0.9 |\n| Müller-20 | 6.3 | 1.2 $\\pm$ 0.1 |",
            ),
            ("Table 1:", "Table 1: Expected", "| Model | ECE |  |\n|---|---|---|\n|  | before | after |"),
            ("fig. 2", "| left | right |", "Figure 2: Reliability of both models, 15 bins."),
            ("Algorithm 1", "Algorithm 1 Fit", "2:      $T\\leftarrow T-\\eta\\nabla_{T}L$\n3:   end for"),
            ("bibliography", "## References", "[2] B. Exempel. Temperatures, revisited. 2021."),
            ("references", "## References", "[1] A. Beispiel. Overconfidence in nets. Journal of Examples, 2019."),
        ],
    )
    def test_any_part_is_reachable(self, read, part, start, holds):
        answer = read("2405.00001", part=part)
        assert answer["text"].startswith(start)
        assert holds in answer["text"]
        assert answer["next_line"] is None

    def test_every_heading_of_the_contents_is_a_part(self, read):
        for heading in read("2405.00001")["contents"]:
            assert read("2405.00001", part=heading)["part"] == heading

    def test_captions_are_listed(self, read):
        (item,) = read("2405.00001", part="tables")["items"]
        assert item["caption"].startswith("Table 1: Expected calibration error")
        lines = read("2405.00001", from_line=item["from_line"], to_line=item["to_line"])["text"]
        assert lines == read("2405.00001", part="table 1")["text"]
        assert "No listings were found" in read("2405.00001", part="listings")["hint"]

    def test_every_visible_word_of_the_page_is_in_the_lines(self, read):
        said = " ".join(everything(read, "2405.00001")[0])
        visible = re.sub(
            r"(?s)<(script|style|nav|footer|head)\b.*?</\1>|<annotation.*?</annotation>|<math.*?</math>", " ", SAMPLE
        )
        words = set(re.findall(r"\w{3,}", re.sub(r"<[^>]*>", " ", visible)))
        assert len(words) > 90
        assert {word for word in words if word not in said} == set()
        assert all(tex in said for tex in re.findall(r'alttext="(?:\\displaystyle)?([^"]*)"', SAMPLE))
        assert "never shown" not in said and "navigation" not in said and "Generated by" not in said

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"part": "4"}, "no part '4'.*It has: .*without `part`"),
            ({"part": "me"}, "fits several sections: '2 Method', '3 Experiments'"),
            ({"part": "table 7"}, "has no 'table 7'. It has table 1."),
            ({"part": "page 2"}, "no page 2.*a source without pages"),
            ({"part": "2.2", "from_line": 3}, r"'2.2 Why it works' is lines \d+ to \d+: from_line=3"),
            ({"from_line": 9, "to_line": 8}, "to_line=8 comes before from_line=9"),
            ({"from_line": 0}, "a line number from 1 on, not 0"),
            ({"source": "latex"}, "html, ar5iv, hub or pdf, not 'latex'"),
        ],
    )
    def test_what_is_not_there_is_told(self, read, arguments, message):
        with pytest.raises(ValueError, match=message) as caught:
            read("2405.00001", **arguments)
        assert len(str(caught.value).splitlines()) == 1


class TestHundredPages:
    def test_the_contents_are_one_call_of_less_than_1500_tokens(self, read):
        answer = read("2405.00002")
        assert answer["tokens"] > 90_000
        assert _model_tokens(str(answer)) < 1500
        assert "'contents of HEADING'" in answer["hint"] or "from_line" in answer["hint"]

    def test_every_section_is_reachable_from_the_contents(self, read):
        document = read._document("2405.00002", "")
        reached = set()
        todo = list(read("2405.00002")["contents"])
        while todo:
            heading = todo.pop()
            if heading in reached:
                continue
            reached.add(heading)
            inner = read("2405.00002", part=f"contents of {heading}")
            assert inner["part"] == heading
            assert _model_tokens(str(inner)) < 1500
            assert "next_line" not in inner
            todo += inner["contents"]
        assert reached == {one["label"] for one in document["sections"]}
        assert len(reached) > 100

    def test_nothing_is_lost_or_told_twice_between_ranges(self, read):
        lines, calls = everything(read, "2405.00002")
        numbers = [int(number) for number in re.findall(r"\[sentence (\d+)\]", " ".join(lines))]
        assert numbers == list(range(1, SENTENCES + 1))
        assert calls > 10
        assert lines == read._document("2405.00002", "")["lines"]

    def test_the_sections_together_are_the_paper(self, read):
        answer, found = read("2405.00002"), []
        for heading in answer["contents"]:
            if heading.count(".") == 0:
                found += re.findall(r"\[sentence (\d+)\]", " ".join(everything(read, "2405.00002", heading)[0]))
        assert found == [str(number) for number in range(1, SENTENCES + 1)]
        assert read("2405.00002", part="table 7")["text"].count("variant") == 12

    def test_a_paper_is_fetched_once(self, read, arxiv):
        for part in (None, "1", "2", "table 3"):
            read("2405.00002", part=part)
        assert len(arxiv.requests) == 1
        PaperReadTool()("2405.00002", part="2")  # another process would find it on disk as well
        assert len(arxiv.requests) == 1
        started = time.monotonic()
        for _ in range(20):
            read("2405.00002", part="table 3")
        assert (time.monotonic() - started) / 20 < 0.02


def test_thousands_of_headings_in_any_script_come_in_pages_that_fit(read, workspace):
    read.workspace = workspace
    titles = [
        ("学習率の予熱と減衰に関する考察" if number % 2 else "Überprüfung der $\\alpha_{k}$-Größe") + f" {number}"
        for number in range(1000)
    ]
    workspace.write_bytes("many.md", "\n".join(f"## {title}\nwords" for title in titles).encode())
    seen, at, calls = [], 1, 0
    started = time.monotonic()
    while at:
        answer = read("many.md", part="contents", from_line=at)
        assert _model_tokens(str(answer)) < 1500
        seen += answer["contents"]
        at, calls = answer.get("next_line"), calls + 1
        if calls == 3:
            at = 950  # the rest is no different
            seen_before, seen = len(seen), []
    assert seen_before > 60
    assert seen == titles[949:]
    assert time.monotonic() - started < 10


def _model_tokens(text: str) -> int:
    import os

    import tiktoken

    litellm = Path(tiktoken.__file__).parents[1] / "litellm" / "litellm_core_utils" / "tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(litellm)  # the vocabulary that comes with litellm: nothing is fetched
    return len(tiktoken.get_encoding("cl100k_base").encode(text))


class TestSources:
    @pytest.mark.parametrize(
        ("name", "kind", "holds"),
        [
            ("https://arxiv.org/abs/2405.00001v2", "html", "2.1 Temperature"),
            ("10.48550/arXiv.2405.00001", "html", "2.1 Temperature"),
            ("https://arxiv.org/pdf/2405.00001.pdf", "html", "2.1 Temperature"),
            ("https://huggingface.co/papers/2405.00001", "html", "2.1 Temperature"),
            ("2405.00003", "ar5iv", "2.1 Temperature"),
            ("2405.00004", "hub", "2 Results"),
            ("hep-th/9901001", "pdf", "1.1 Motivation"),
            ("hep-th/9901001v2", "pdf", "1.1 Motivation"),
            ("2405.00005", "pdf", "2.1 More"),
        ],
    )
    def test_the_best_there_is_is_taken_and_named(self, read, name, kind, holds):
        answer = read(name)
        assert answer["source"]["kind"] == kind
        assert holds in answer["contents"]

    def test_a_source_can_be_chosen(self, read):
        answer = read("2405.00001", source="pdf")
        assert answer["source"]["kind"] == "pdf"
        assert answer["counts"]["pages"] == 1

    def test_a_version_comes_from_arxiv_itself_before_others(self, read, arxiv):
        answer = read("2405.00003v1")
        assert answer["source"]["kind"] == "pdf"
        answer = read("2405.00003v1", source="ar5iv")
        assert answer["warnings"] == ["ar5iv has one version only, which may not be v1."]

    def test_markdown_of_the_hub(self, read):
        answer = read("2405.00004")
        assert (answer["title"], answer["counts"]) == ("A Paper in Markdown", {"tables": 1, "references": 2})
        assert list(answer["contents"]) == ["1 Introduction", "2 Results", "References"]
        assert read("2405.00004", part="table 1")["text"] == "| a | b |\n|---|---|\n| 1 | 2 |\n\nTable 1: The results."
        assert everything(read, "2405.00004")[0] == MARKDOWN.split("\n")

    def test_a_pdf_without_bookmarks(self, read):
        answer = read("hep-th/9901001")
        assert list(answer["contents"]) == ["Abstract", "1 Introduction", "1.1 Motivation", "2 Method", "References"]
        assert (answer["title"], answer["counts"]["pages"]) == ("On Plain Files", 3)
        assert read("hep-th/9901001", part="page 2")["text"].startswith("[page 2]\n1 Introduction\nIt begins.")
        assert read("hep-th/9901001", part="figure 1")["text"].startswith("Figure 1: A drawing\nof something.")
        assert "3 of 10 runs" in read("hep-th/9901001", part="1.1")["text"]
        with pytest.raises(ValueError, match="no page 4: hep-th/9901001 has 3 pages"):
            read("hep-th/9901001", part="page 4")

    def test_a_pdf_with_bookmarks(self, read):
        answer = read("2405.00005")
        assert list(answer["contents"]) == ["1 Introduction", "2 Method", "2.1 More"]
        assert answer["title"] == "A Marked PDF"
        assert read("2405.00005", part="2")["text"] == "Method\nBye.\n\n[page 3]\nMore\nLast.\n"

    def test_a_withdrawn_paper_says_so(self, read, arxiv):
        answer = read("2405.00009", part="abstract")
        assert answer["source"]["kind"] == "abstract"
        assert "What it is about." in answer["text"]
        assert "withdrawn by the author: an error in Lemma 2" in answer["warnings"][0]
        assert "this is the abstract" in answer["warnings"][1]

    def test_an_older_text_of_a_withdrawn_paper_says_so(self, read, arxiv):
        arxiv.publish("2405.00009", ar5iv=SAMPLE)
        answer = read("2405.00009")
        assert answer["source"]["kind"] == "ar5iv"
        assert "withdrawn" in answer["warnings"][0]
        del arxiv._texts["ar5iv", "2405.00009"]

    @pytest.mark.parametrize("name", ["2405.99999", "2405.00001v3", "hep-th/0000000"])
    def test_a_paper_that_does_not_exist(self, read, arxiv, name):
        with pytest.raises(FileNotFoundError, match=f"has no paper {name}. Check the id and its version"):
            read(name)
        assert len(arxiv.requests) == 2

    def test_an_address_of_a_pdf(self, read, arxiv):
        answer = read(f"{arxiv.url}/pdf/2405.00005?download=1")
        assert answer["source"]["kind"] == "pdf"
        assert "2 Method" in answer["contents"]

    def test_files_of_the_workspace(self, read, workspace):
        read.workspace = workspace
        workspace.write_bytes("in/mine.pdf", MARKED_PDF)
        workspace.write_bytes("page.html", SAMPLE.encode())
        workspace.write_bytes("note.md", MARKDOWN.encode())
        workspace.write_bytes(
            "plain.html", b"<html><body><h1>T</h1><h2>One</h2><p>a</p><h2>Two</h2><p>b</p></body></html>"
        )
        assert read("in/mine.pdf", part="2.1")["text"] == "More\nLast.\n"
        assert "2.1 Temperature" in read("/workspace/page.html")["contents"]
        assert read("note.md")["source"] == {"kind": "file", "url": None, "fetched": None}
        assert list(read("plain.html")["contents"]) == ["T", "One", "Two"]
        workspace.write_bytes("junk.bin", bytes(range(256)) * 9)
        with pytest.raises(ValueError, match=r"junk\.bin is neither PDF, HTML nor text"):
            read("junk.bin")
        with pytest.raises(ValueError, match="'ResNet' is no arXiv id or address, and the workspace has no such file"):
            read("ResNet")
        workspace.write_bytes("2405.00001.pdf", MARKED_PDF)
        assert read("2405.00001.pdf")["source"]["kind"] == "file"
        assert read("2405.00001")["source"]["kind"] != "file"
        workspace.write_bytes("bad.pdf", MARKED_PDF[:300])
        with pytest.raises(ValueError, match=r"bad\.pdf (cannot be read as PDF|holds no text)"):
            read("bad.pdf")

    def test_a_scan_is_told_from_a_text(self, read, workspace):
        read.workspace = workspace
        workspace.write_bytes("scan.pdf", pdf([[], []]))
        with pytest.raises(ValueError, match=r"scan\.pdf holds no text: its pages are images"):
            read("scan.pdf")

    def test_without_a_workspace(self, read):
        with pytest.raises(ValueError, match="there is no workspace"):
            read("paper.pdf")


HTML_ERROR = {
    "status": 200,
    "body": "<html><body>Please log in</body></html>",
    "headers": {"content-type": "text/html"},
}


class TestFailures:
    @pytest.mark.parametrize(
        ("failure", "message"),
        [
            ({"status": 500}, "answered with HTTP 500"),
            ({"status": 429, "headers": {"Retry-After": "1234"}}, "HTTP 429 and asks to wait 1234 s"),
            ({"status": 401}, "HTTP 401"),
            ({"drop": True}, "cannot be reached"),
            ({"drop": 5}, "broke off|cannot be reached"),
        ],
    )
    def test_a_failing_service_is_named_and_never_an_absent_paper(self, read, arxiv, hub_pages, failure, message):
        for one in (arxiv, hub_pages):
            one.fail(".", times=None, **failure)
        started = time.monotonic()
        with pytest.raises(ConnectionError, match=message) as caught:
            read("2405.00001")
        assert time.monotonic() - started < 20
        text = str(caught.value)
        assert arxiv.url in text
        assert hub_pages.url in text or "drop" in failure
        assert "Try again later, or check the network and ARXIV_BASE_URL" in text
        assert len(text.splitlines()) == 1

    def test_everything_is_down(self, read, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        for name in ("ARXIV_BASE_URL", "AR5IV_BASE_URL", "HF_ENDPOINT"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        with pytest.raises(ConnectionError, match=f"127.0.0.1:{port} cannot be reached"):
            read("2405.00001", source="html")

    def test_another_source_steps_in_and_the_failure_is_told(self, read, arxiv):
        arxiv.fail("/html/2405.00004", status=503, times=None)
        answer = read("2405.00004")
        assert answer["source"]["kind"] == "hub"
        assert "html: http://127.0.0.1" in answer["warnings"][0] and "HTTP 503" in answer["warnings"][0]
        ((read_at, _),) = read._papers.values()
        assert time.monotonic() - read_at > 3000, "the better source is soon asked again"

    def test_a_login_page_is_no_paper(self, read, arxiv, hub_pages):
        for one in (arxiv, hub_pages):
            one.fail(r"/(html|papers)/", times=None, **HTML_ERROR)
        answer = read("2405.00001")
        assert answer["source"]["kind"] == "pdf"
        arxiv.fail("/pdf", times=None, **HTML_ERROR)
        answer = PaperReadTool()("2405.00005", source="pdf")
        assert answer["source"]["kind"] == "abstract"
        assert "There is no full text (pdf: the page holds no full text)" in answer["warnings"][0]
        for one in (arxiv, hub_pages):
            one._failures.clear()
        assert PaperReadTool()("2405.00001")["source"]["kind"] == "html", "the login page was not kept"
        assert PaperReadTool()("2405.00005", source="pdf")["source"]["kind"] == "pdf"

    def test_a_passing_failure_is_got_over(self, read, arxiv):
        arxiv.fail("/html", status=429, headers={"Retry-After": "1"})
        started = time.monotonic()
        assert read("2405.00001")["source"]["kind"] == "html"
        assert 1 <= time.monotonic() - started < 4

    def test_the_time_is_bounded_whatever_the_service_does(self, read, arxiv):
        arxiv.fail("/html", delay=3)
        read.max_seconds = 0.3
        with pytest.raises(TimeoutError, match=r"2405.00001 was not there and read within 0\.3 s"):
            read("2405.00001")

    def test_what_is_too_large_is_left_alone(self, read, arxiv):
        read.max_bytes = 500
        with pytest.raises(ValueError, match="larger than 500 bytes"):
            read(f"{arxiv.url}/pdf/2405.00001")


class TestAddresses:
    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:9/a.pdf", "http://169.254.169.254/latest", "http://[::1]:1/x", "http://localhost/"]
    )
    def test_this_machine_and_its_network_are_out_of_bounds(self, read, url):
        with pytest.raises(ValueError, match="on this machine or a private network"):
            read(url)

    def test_only_what_was_found_is_read_where_the_host_says_what_was(self, read, arxiv):
        read.found = lambda url: url.endswith("/2405.00005")
        assert "2 Method" in read(f"{arxiv.url}/pdf/2405.00005")["contents"]
        assert read("2405.00001")["title"], "a paper by its id goes to arXiv and nowhere else"
        arxiv.requests.clear()
        with pytest.raises(ValueError, match=r"no address that a tool returned\. Search for it first"):
            read(f"{arxiv.url}/pdf/2405.00005?d=secret")
        assert arxiv.requests == []

    def test_also_after_a_redirect_and_no_token_goes_anywhere(self, read, arxiv, monkeypatch, tmp_path):
        """A listening server that the paper's page leads to gets no request at all, and arXiv no token."""
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        with Service(Starlette(routes=[Route("/{x:path}", lambda request: Response(TEXT_PDF))])) as other:
            arxiv.fail("/pdf/2405.00001", status=302, headers={"Location": f"{other.url}/stolen.pdf"})
            with pytest.raises(ValueError, match=r"stolen\.pdf is on this machine"):
                read(f"{arxiv.url}/pdf/2405.00001")
            assert other.requests == []
        assert all("authorization" not in request.headers for request in arxiv.requests)

    def test_a_name_that_leads_elsewhere_the_second_time(self, read):
        with Service(Starlette(routes=[Route("/a.pdf", lambda request: Response(TEXT_PDF))])) as other:
            read._check = lambda address: None  # as if it had led to the public net when it was looked up here
            with pytest.raises(ValueError, match=r"a\.pdf is on this machine or a private network"):
                read(f"{other.url}/a.pdf")

    def test_redirects_without_end(self, read, arxiv):
        arxiv.fail("/pdf", status=302, headers={"Location": "/pdf/2405.00001"}, times=None)
        with pytest.raises(ConnectionError, match="redirects without end"):
            read(f"{arxiv.url}/pdf/2405.00001")

    def test_a_redirect_on_the_same_host_is_followed(self, read, arxiv, monkeypatch):
        app = Starlette(
            routes=[
                Route("/old", lambda request: RedirectResponse("/new")),
                Route("/new", lambda r: Response(TEXT_PDF)),
            ]
        )
        with Service(app) as other:
            monkeypatch.setenv("AR5IV_BASE_URL", other.url)
            assert read(f"{other.url}/old")["source"]["url"] == f"{other.url}/new"


def test_odd_pages_do_not_break_it(read):
    """Deep nesting, empty tables, unknown marks, broken TeX: words stay, nothing raises."""
    deep = "<div>" * 150 + "<p class='ltx_p'>deep</p>" + "</div>" * 150
    odd = [
        deep,
        "<table></table>",
        "<table class='ltx_tabular'><tr><td colspan='x' rowspan='99999999999'>cell</td></tr></table>",
        "<math></math><math alttext='a_{'></math>",
        "<span class='ltx_ERROR undefined'>\\foo</span> text <!-- a comment --> more",
        "<svg><foreignObject><p>drawn</p></foreignObject></svg>",
        "<ul class='ltx_itemize'><li class='ltx_item'></li><li class='ltx_item'><p>item</p></li></ul>",
        "x" * 9000,
        "<table><tr><td>outer <table><tr><td>nested</td></tr></table></td></tr></table>",
    ]
    page = latexml("Odd", [], "", [Part("", [one]) for one in odd])
    document = read._parse(page.encode(), {"type": "text/html"}, "odd")
    said = " ".join(document["lines"])
    for word in ("deep", "cell", "$a_{$", "\\foo text", "more", "drawn", "item", "x" * 4000):
        assert word in said
    assert "a comment" not in said
    assert said.count("nested") == 1
    assert max(len(line) for line in document["lines"]) <= 4000


BLOCKS = st.sampled_from(
    ["p", "div class='ltx_para'", "section class='ltx_section'", "ul", "li class='ltx_item'", "table", "tr", "td"]
)
BLOCKS |= st.sampled_from(
    ["figure", "figcaption", "span class='ltx_tabular'", "span class='ltx_note'", "math", "h3 class='ltx_title'"]
)
PAGES = st.recursive(
    st.text("abcXYZ é|$<&", max_size=12).map(html.escape),
    lambda inner: st.builds(
        lambda tag, parts: f"<{tag}>{' '.join(parts)}</{tag.split()[0]}>", BLOCKS, st.lists(inner, max_size=4)
    ),
    max_leaves=25,
)


@settings(max_examples=60, deadline=None)
@given(PAGES, st.integers(1, 40))
def test_no_page_breaks_it_or_loses_a_word(body, width):
    tool = PaperReadTool()
    tool.most_tokens = width
    page = f"<html><body><article class='ltx_document'>kept {body} <p>last</p></article></body></html>"
    document = {
        **tool._parse(page.encode(), {"type": "text/html"}, "page"),
        "paper": "x",
        "source": {"kind": "html"},
        "warnings": [],
    }
    tool._document = lambda paper, source: document
    lines, at = [], 1
    while at:
        answer = tool("x", part="all", from_line=at)
        lines += answer["text"].split("\n")
        at = answer["next_line"]
    assert lines == document["lines"]
    said = " ".join(" ".join(lines).replace("\\|", "|").split())
    for word in lxml.html.fromstring(page).xpath("string()").split():
        assert word in said
    for one in document["sections"]:
        assert 0 <= one["start"] <= one["end"] <= len(lines)


def _damaged(seed: int) -> bytes:
    dice, body = random.Random(seed), bytearray(MARKED_PDF)
    for _ in range(dice.randint(1, 12)):
        at = dice.randrange(len(body))
        if dice.random() < 0.5:
            body[at : at + dice.randint(0, 40)] = dice.randbytes(dice.randint(0, 8))
        else:
            body[at] = dice.randrange(256)
    return bytes(body)


@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(30, 1500), marks=pytest.mark.soak)])
def test_a_damaged_pdf_is_read_or_refused_in_one_line(seeds):
    tool, read = PaperReadTool(), 0
    for seed in seeds:
        try:
            document = tool._parse(_damaged(seed), {"type": "application/pdf"}, "damaged.pdf")
        except ValueError as error:
            assert len(str(error).splitlines()) == 1, seed
        else:
            read += 1
            assert all(0 <= one["start"] <= one["end"] <= len(document["lines"]) for one in document["sections"]), seed
    assert read > len(seeds) / 4


@pytest.mark.long
def test_it_survives_saving_and_works_over_there(arxiv):
    environment = arxiv.environment()
    answer = assert_survives_saving(
        PaperReadTool,
        "lxml",
        "pypdf",
        "requests",
        call={"paper": "2405.00005", "part": "2.1"},
        environment=environment,
    )
    assert answer["text"] == "More\nLast.\n"
