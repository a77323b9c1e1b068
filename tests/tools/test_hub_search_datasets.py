"""Searching for datasets, against a local Hub with the unmodified client."""

import pytest
from ml_intern.tools import HubSearchDatasetsTool
from saving import assert_survives_saving


def card(**front):
    return ("---\n" + "".join(f"{key}: {value}\n" for key, value in front.items()) + "---\nAbout it.\n").encode()


@pytest.fixture
def library(hub):
    reviews = card(license="mit", task_categories="[text-classification]", language="[en]", size_categories="[n<1K]")
    hub.seed("acme/movie-reviews", "dataset", {"README.md": reviews}, downloads=10, likes=1)
    german = card(license="cc-by-4.0", task_categories="[text-classification]", language="[de]", tags="[film]")
    hub.seed("acme/film-reviews", "dataset", {"README.md": german}, downloads=30)
    hub.seed("other/speech", "dataset", {"README.md": card(license="mit")}, downloads=20, likes=9, gated="auto")
    hub.seed("other/secret-reviews", "dataset", {}, private=True)
    return hub


def ids(**arguments):
    return [dataset["id"] for dataset in HubSearchDatasetsTool()(**arguments)["datasets"]]


def test_what_a_result_says(library):
    found = HubSearchDatasetsTool()(query="movie")
    assert found["query"] == {"search": "movie", "sort": "downloads", "limit": 10}
    assert found["more"] is False
    (movie,) = found["datasets"]
    assert movie.pop("last_modified").startswith("20")
    assert {"license:mit", "language:en"} <= set(movie.pop("tags"))
    assert movie == {
        "id": "acme/movie-reviews",
        "author": "acme",
        "downloads": 10,
        "likes": 1,
        "task_categories": ["text-classification"],
        "languages": ["en"],
        "license": "mit",
        "size_category": "n<1K",
        "bytes": 2293,
        "modalities": [],
        "formats": [],
        "gated": False,
        "private": False,
        "description": "About it.",
    }
    assert set(HubSearchDatasetsTool.output_schema["properties"]) == {*found, "hint"}


def test_a_long_description_ends_at_a_word(library):
    about = b"---\nlicense: mit\n---\n" + b"wonderful films " * 30
    library.seed("acme/long", "dataset", {"README.md": about})
    (found,) = HubSearchDatasetsTool()(query="long")["datasets"]
    assert 280 < len(found["description"]) <= 300
    assert found["description"].endswith((" wonderful…", " films…"))


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"query": "unheard of"}, "fewer or other words"),
        ({"query": "movie", "language": "de", "author": "acme"}, "; or drop one of the filters (language:de, acme)"),
        ({"task": "unheard-of"}, "Nothing fits. Try to drop one of the filters (task_categories:unheard-of)."),
    ],
)
def test_nothing_found_comes_with_a_hint(library, arguments, hint):
    found = HubSearchDatasetsTool()(**arguments)
    assert found["datasets"] == []
    assert hint in found["hint"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"query": "reviews"}, ["acme/film-reviews", "acme/movie-reviews"]),
        ({"task": "Text Classification"}, ["acme/film-reviews", "acme/movie-reviews"]),
        ({"task": "text-classification", "language": "DE"}, ["acme/film-reviews"]),
        ({"license": "MIT"}, ["other/speech", "acme/movie-reviews"]),
        ({"size": "n<1K"}, ["acme/movie-reviews"]),
        ({"gated": True}, ["other/speech"]),
        ({"gated": False, "license": "mit"}, ["acme/movie-reviews"]),
        ({"modality": "Image"}, []),
        ({"format": "parquet"}, []),
        ({"benchmark": True}, []),
        ({"tags": ["film"]}, ["acme/film-reviews"]),
        ({"tags": "film"}, ["acme/film-reviews"]),
        ({"tags": ["film", "license:mit"]}, []),
        ({"author": "other"}, ["other/speech"]),
        ({"author": "acme", "sort": "likes"}, ["acme/movie-reviews", "acme/film-reviews"]),
        ({}, ["acme/film-reviews", "other/speech", "acme/movie-reviews"]),
    ],
)
def test_filters_and_order(library, arguments, expected):
    assert ids(**arguments) == expected


def test_what_is_told_of_files_and_kinds(library):
    features = "\n- config_name: default\n  features:\n  - {name: text, dtype: string}"
    files = {"README.md": card(dataset_info=features), "train.csv": b"text\nx\n"}
    library.seed("acme/typed", "dataset", files)
    (one,) = HubSearchDatasetsTool()(query="typed")["datasets"]
    assert (one["modalities"], one["formats"]) == (["text"], ["csv"])
    assert ids(modality="Text") == ids(format="csv") == ["acme/typed"]
    assert one["bytes"] > len(files["README.md"])


def test_pages_follow_one_another_and_nothing_is_shown_twice(library):
    tool, seen, cursor = HubSearchDatasetsTool(), [], None
    for _ in range(2):
        page = tool(limit=2, cursor=cursor)
        seen += [one["id"] for one in page["datasets"]]
        cursor = page["next"]
        assert page["more"] is bool(cursor)
    assert cursor is None
    assert seen == ids(limit=100)


def test_what_was_asked_before_is_not_asked_again_but_by_another(library, monkeypatch):
    tool = HubSearchDatasetsTool()
    tool(query="secret")["datasets"].append("x")
    library.requests.clear()
    assert tool(query="secret")["datasets"] == []
    assert library.requests == []
    monkeypatch.setenv("HF_TOKEN", "hf_other_token")
    assert [one["id"] for one in tool(query="secret")["datasets"]] == ["other/secret-reviews"]


def test_the_limit_and_whether_there_is_more(library):
    found = HubSearchDatasetsTool()(limit=2)
    assert len(found["datasets"]) == 2
    assert found["more"] is True
    assert HubSearchDatasetsTool()(limit=3)["more"] is False


def test_what_needs_a_token(library, monkeypatch):
    assert HubSearchDatasetsTool()(query="speech")["datasets"][0]["gated"] is True
    assert ids(query="secret") == []
    monkeypatch.setenv("HF_TOKEN", "hf_other_token")
    assert ids(query="secret") == ["other/secret-reviews"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sort": "best"}, "`sort` is one of downloads, likes"),
        ({"limit": 0}, "`limit` is 1 to 100"),
        ({"limit": 101}, "`limit` is 1 to 100"),
        ({"size": "small"}, "`size` is one of n<1K"),
    ],
)
def test_arguments_that_make_no_sense_are_not_sent(library, arguments, message):
    before = len(library.requests)
    with pytest.raises(ValueError, match=message):
        HubSearchDatasetsTool()(**arguments)
    assert len(library.requests) == before


def test_one_stumble_of_the_hub_is_got_over(library):
    library.fail("/api/datasets", status=503)
    assert ids(query="movie") == ["acme/movie-reviews"]


@pytest.mark.long
def test_it_survives_saving(library):
    found = assert_survives_saving(
        HubSearchDatasetsTool, "huggingface_hub", call={"query": "movie"}, environment=library.environment()
    )
    assert found["datasets"][0]["id"] == "acme/movie-reviews"
