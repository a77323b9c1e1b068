"""The local GitHub speaks as GitHub's documentation says: limits, ETags, renames, trees, contents and blobs."""

import base64

import pytest
import requests

from ml_intern.testing import LocalGithub

RAW = {"Accept": "application/vnd.github.raw+json"}


@pytest.fixture(scope="module")
def running():
    with LocalGithub() as service:
        yield service


@pytest.fixture
def github(running):
    running.repos.clear()
    running.used.clear()
    running.limit = 60
    running.add("acme/x", {"README.md": b"# X\n", "src/a.py": b"a = 1\n", "large.txt": b"x" * 1_500_000}, stars=3)
    running.add("acme/hidden", {"a": b"1"}, private=True)
    return running


def get(github, path, token="", **options):
    headers = {**options.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
    return requests.get(f"{github.url}{path}", headers=headers, timeout=5, **options)


def test_requests_are_counted_and_end(github):
    github.limit = 2
    first, second, third = [get(github, "/repos/acme/x") for _ in range(3)]
    assert [one.headers["X-RateLimit-Remaining"] for one in (first, second, third)] == ["1", "0", "0"]
    assert (third.status_code, third.headers["X-RateLimit-Reset"]) == (403, str(int(github.reset)))
    assert third.json()["message"].startswith("API rate limit exceeded for 127.0.0.1")
    assert get(github, "/repos/acme/x", "local-github-token").headers["X-RateLimit-Remaining"] == "4999"
    assert get(github, "/search/repositories?q=x").headers["X-RateLimit-Resource"] == "search"


def test_what_has_not_changed_is_not_counted(github):
    first = get(github, "/repos/acme/x")
    again = get(github, "/repos/acme/x", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert github.used[" core"] == 1
    github.repos["acme/x"].stars = 4
    assert (
        get(github, "/repos/acme/x", headers={"If-None-Match": first.headers["ETag"]}).json()["stargazers_count"] == 4
    )


def test_contents_trees_and_blobs(github):
    file = get(github, "/repos/acme/x/contents/src/a.py").json()
    assert base64.b64decode(file["content"]) == b"a = 1\n"
    assert file["sha"] == "1337a530cbc1bd7d20aee2d80f1f174a9182417d"  # as `git hash-object` has it
    assert [row["type"] for row in get(github, "/repos/acme/x/contents/").json()] == ["file", "file", "dir"]
    large = get(github, "/repos/acme/x/contents/large.txt").json()
    assert (large["encoding"], large["content"], large["size"]) == ("none", "", 1_500_000)
    assert len(get(github, f"/repos/acme/x/git/blobs/{large['sha']}", headers=RAW).content) == 1_500_000
    tree = get(github, "/repos/acme/x/git/trees/main?recursive=1").json()
    assert {row["path"]: row["type"] for row in tree["tree"]}["src"] == "tree"
    assert "src/a.py" not in {row["path"] for row in get(github, "/repos/acme/x/git/trees/main").json()["tree"]}


def test_a_renamed_repository_redirects_to_its_number(github):
    github.rename("acme/x", "acme/y")
    answer = get(github, "/repos/acme/x/contents/README.md?ref=main", allow_redirects=False)
    assert answer.status_code == 301
    assert answer.headers["Location"] == f"{github.url}/repositories/1001/contents/README.md?ref=main"
    assert get(github, "/repos/acme/x").json()["full_name"] == "acme/y"


def test_who_may_see_what(github):
    assert get(github, "/repos/acme/hidden").status_code == 404
    assert get(github, "/repos/acme/hidden", "local-github-token").status_code == 200
    assert get(github, "/repos/acme/x", "nonsense").json()["message"] == "Bad credentials"
    assert get(github, "/search/code?q=a+repo:acme/x").status_code == 401
    found = get(github, "/search/code?q=a+repo:acme/x", "local-github-token").json()
    assert [item["path"] for item in found["items"]] == ["src/a.py"]
    assert get(github, "/search/repositories?q=user:nobody").status_code == 422
    assert [one["full_name"] for one in get(github, "/search/repositories?q=user:acme").json()["items"]] == ["acme/x"]
