"""The local Hub's documentation lies where doc-builder and the site have it, in their forms."""

from pathlib import Path

import pytest
import requests

from ml_intern.testing import LocalHub

PAGE = "# Trainer[[trainer]]\n\nTrains.\n\n## Use[[use]]\n\n```py\n# no heading\nx = 1\n```\n"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("hub")
    with LocalHub(folder) as service:
        service.add_docs("trl", {"index": "# TRL\n\nHello.", "trainer": PAGE}, older={"v0.9.0": {"trainer": "# Old"}})
        service.add_docs("setfit", {"index": "# SetFit"}, lists=False, markdown=False)
        service.add_docs("agents-course", {"unit1/intro": "# Intro"})
        yield service


def get(hub, path, **options):
    return requests.get(f"{hub.url}{path}", timeout=5, **options)


@pytest.mark.parametrize("base", ["/docs/trl", "/docs/trl/v1.0.0", "/docs/trl/main", "/docs/trl/main/en"])
def test_a_page_at_each_of_its_addresses(hub, base):
    answer = get(hub, f"{base}/trainer.md")
    assert answer.text == PAGE
    assert answer.headers["content-type"].startswith("text/markdown")
    html = get(hub, f"{base}/trainer")
    assert html.headers["content-type"].startswith("text/html")
    assert '<a id="use" class="header-link" href="#use">' in html.text
    assert "# no heading" in html.text


def test_lists_have_the_addresses_of_the_real_site(hub):
    assert "- [Trainer](https://huggingface.co/docs/trl/v1.0.0/trainer.md)" in get(hub, "/docs/trl/llms.txt").text
    full = get(hub, "/docs/trl/llms-full.txt").text
    assert "\n### Trainer\nhttps://huggingface.co/docs/trl/v1.0.0/trainer.md\n\n# Trainer[[trainer]]\n" in full
    assert (
        "https://huggingface.co/learn/agents-course/unit1/intro.md" in get(hub, "/learn/agents-course/llms.txt").text
    )
    assert get(hub, "/docs/setfit/llms.txt").status_code == 404


def test_versions_languages_and_what_is_not_there(hub):
    assert get(hub, "/docs/trl/v0.9.0/trainer.md").text == "# Old"
    for path in ("/docs/trl/none", "/docs/trl/fr/trainer", "/docs/none/x", "/docs/agents-course/unit1/intro"):
        assert get(hub, path).status_code == 404, path
    assert get(hub, "/docs/setfit/index.md").status_code == 404
    assert get(hub, "/docs/trl", allow_redirects=False).headers["location"] == f"{hub.url}/docs/trl/index"


def test_the_list_of_libraries_and_the_search(hub):
    assert {row["id"]: row["url"] for row in get(hub, "/api/docs").json()}["agents-course"] == "/learn/agents-course"
    (row,) = get(hub, "/api/docs/search?q=x&product=trl").json()
    assert (row["product"], row["heading1"], row["heading2"]) == ("trl", "Trainer", "Use")
    assert row["source_page_url"] == "https://huggingface.co/docs/trl/trainer#use"
    assert get(hub, "/api/docs/search").status_code == 400
