"""hub_repo against a local Hub: what only reads is free, what changes something is shown in full, asked about, done once."""

import json
import time

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from jsonschema import validate
from ml_intern.tools import HubRepoTool
from saving import assert_survives_saving

from ml_intern.approval import ApprovalGate, ApprovalPolicy
from ml_intern.effects import effects_of
from ml_intern.errors import Denied
from ml_intern.events import ApprovalAnswer
from ml_intern.router import ToolRouter
from ml_intern.secrets import Masker
from ml_intern.steps import ToolCallStep

CARD = "---\nlicense: mit\n---\n# M\n\nold words\n"
BETTER = CARD.replace("old", "better")
READS = [name for name, effect in HubRepoTool.effects.items() if effect == "read"]
WRITES = [name for name, effect in HubRepoTool.effects.items() if effect == "write"]


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def repo(hub):
    """A private model of the user's own, a public one, and one of somebody else's."""
    files = {"README.md": CARD.encode(), "w.safetensors": b"0" * 50, "ck/1.txt": b"1", "ck/2.txt": b"2"}
    hub.seed("tester/m", "model", files, private=True)
    hub.seed("tester/open", "model", files)
    hub.seed("acme/theirs", "model", files)
    hub.requests.clear()
    return hub


@pytest.fixture
def tool(repo):
    made = HubRepoTool()
    made.call_id = "call_1"
    return lambda operation, repo_id="tester/m", **more: made(operation=operation, repo_id=repo_id, **more)


def asked(operation, repo_id="tester/m", **more):
    """The tool as a call gets it, and the arguments."""
    made = HubRepoTool()
    made.call_id = f"call_{operation}"
    return made, {"operation": operation, "repo_id": repo_id, **more}


def shown(operation, repo_id="tester/m", **more):
    made, arguments = asked(operation, repo_id, **more)
    made.check(**arguments)
    return made.preview(**arguments)


def where(operation, repo_id="tester/m", **more):
    made, arguments = asked(operation, repo_id, **more)
    return made.destination(**arguments)


def writes_of(hub):
    """Requests that change something; `preupload` and the card's check do not."""
    harmless = ("/preupload/", "/validate-yaml", "/paths-info/")
    changing = [one for one in hub.requests if one.method not in ("GET", "HEAD")]
    return [one for one in changing if not any(part in one.path for part in harmless)]


def propose(api, repo_id="tester/m", path="README.md", text=BETTER, title="Better words"):
    operations = [CommitOperationAdd(path, text.encode())]
    return api.create_commit(repo_id, operations=operations, commit_message=title, create_pr=True)


class TestReading:
    def test_refs_commits_and_settings(self, repo, api, tool):
        api.create_branch("tester/m", branch="dev")
        api.create_tag("tester/m", tag="v1")
        sha = api.model_info("tester/m").sha
        answer = tool("refs")
        validate(answer, HubRepoTool.output_schema)
        assert answer["branches"] == {"main": sha, "dev": sha}
        assert (answer["tags"], answer["pull_requests"]) == ({"v1": sha}, {})
        answer = tool("commits", limit=1)
        assert answer["commits"][0]["commit"] == sha
        assert (answer["commits"][0]["title"], answer["more"]) == ("Upload files", True)
        assert [one["title"] for one in tool("commits", limit=2)["commits"]] == ["Upload files", "initial commit"]
        settings = tool("settings")["settings"]
        assert (settings["visibility"], settings["gated"], settings["revision"]) == ("private", "off", sha)

    def test_a_pull_request_with_its_difference(self, api, tool):
        made = propose(api)
        api.comment_discussion("tester/m", 1, "Looks right.")
        (row,) = tool("discussions")["discussions"]
        assert (row["number"], row["title"], row["pull_request"], row["status"]) == (1, "Better words", True, "open")
        one = tool("discussion", number=1)["discussion"]
        assert one["head"] == made.oid
        assert "-old words\n+better words" in one["diff"]
        assert [event["type"] for event in one["events"]] == ["comment", "commit", "comment"]
        assert one["events"][-1]["content"] == "Looks right."
        assert one["conflicts"] == []

    def test_long_histories_are_read_as_far_as_wanted(self, repo, tool):
        link = {"Link": '<https://huggingface.example/api/x?cursor=5>; rel="next"', "content-type": "application/json"}
        row = {
            "id": "a" * 40,
            "title": "t",
            "message": "m",
            "date": "2026-01-01T00:00:00Z",
            "authors": [{"user": "x"}],
        }
        repo.fail("/commits/", status=200, headers=link, body=json.dumps([row]))
        repo.fail("/commits/", status=200, headers=link, body=json.dumps([{**row, "id": "b" * 40}]))
        assert [one["commit"][0] for one in tool("commits", limit=1)["commits"]] == ["a"]
        assert repo.requests[-1].path.endswith("/commits/main?cursor=5")

    @pytest.mark.parametrize("operation", READS)
    def test_nothing_is_asked_or_looked_up_before(self, repo, operation):
        more = {"number": 1} if operation == "discussion" else {}
        assert where(operation, **more) is None
        assert shown(operation, **more) == ""
        assert repo.requests == []


class TestShown:
    """What a person reads: all of it, and loudly what cannot be taken back."""

    def test_becoming_public(self, repo):
        text = shown("update_settings", visibility="public")
        assert "!! IT BECOMES PUBLIC: EVERYONE CAN READ ALL FILES AND THEIR HISTORY." in text
        assert "visibility: private -> public" in text
        assert where("update_settings", visibility="public") == {"name": "tester/m", "visibility": "public"}
        assert "PUBLIC" not in shown("update_settings", "tester/m", gated="manual")
        text = shown("update_settings", "tester/open", visibility="private")
        assert "visibility: public -> private" in text
        assert where("update_settings", "tester/open", visibility="private")["visibility"] == "public"

    def test_a_gate_that_is_taken_away(self, api, repo):
        api.update_repo_settings("tester/open", gated="manual")
        assert "NO LONGER GATED" in shown("update_settings", "tester/open", gated="off")

    def test_a_new_repository_and_a_copy(self, repo):
        assert where("create_repo", "tester/new")["visibility"] == "private"
        assert where("create_repo", "tester/new", visibility="public")["visibility"] == "public"
        assert "IT WILL BE PUBLIC" in shown("create_repo", "tester/new", visibility="public")
        assert where("duplicate", "acme/theirs", name="tester/copy") == {
            "name": "tester/copy",
            "visibility": "private",
        }
        text = shown("duplicate", name="copy", visibility="public")
        assert "THE COPY WILL BE PUBLIC" in text
        assert "IT COPIES WHAT IS private" in text

    def test_a_branch_that_will_be_gone(self, api, repo):
        api.create_branch("tester/m", branch="dev")
        assert "Another ref is at that commit." in shown("delete_branch", name="dev")
        operations = [CommitOperationAdd("new.txt", b"1")]
        sha = api.create_commit("tester/m", operations=operations, commit_message="x", revision="dev").oid
        text = shown("delete_branch", name="dev")
        assert f"!! THE BRANCH dev WILL BE GONE. It is at {sha}." in text
        assert "what only it has is lost" in text

    def test_a_commit_as_its_difference(self, repo):
        files = {"README.md": BETTER, "new.py": "x = 1\n"}
        text = shown("commit", title="Fix the card", text="Because.", files=files, delete=["ck/", "w.safetensors"])
        for line in (
            "-old words",
            "+better words",
            "+++ new.py new",
            "+x = 1",
            "A commit to main: Fix the card",
            "Because.",
        ):
            assert line in text.split("\n"), line
        for name in ("ck/1.txt", "ck/2.txt", "w.safetensors"):
            assert f"!! DELETES {name}" in text
        repo.seed("tester/m", "model", {"binary.txt": b"\xff\xfe\x00\x01"})
        assert "binary.txt IS NO TEXT" in shown("commit", title="abc", files={"binary.txt": "x"})

    def test_a_merge_with_what_it_brings(self, api, repo):
        made = propose(api)
        text = shown("merge", number=1, revision=made.oid)
        assert "+better words" in text
        assert f"commits up to {made.oid}" in text

    def test_words_that_play_with_the_terminal(self, repo):
        text = shown("create_discussion", title="Hello there", text="\x1b[2J\u202ereversed")
        assert "\x1b" not in text
        assert "\u202e" not in text

    def test_a_hub_that_is_down_is_said(self, repo):
        repo.close()
        made, arguments = asked("update_settings", visibility="public")
        made.check(**arguments)
        text = made.preview(**arguments)
        assert "THE HUB COULD NOT BE ASKED WHO CAN SEE IT." in text
        assert "IT BECOMES PUBLIC" in text
        assert made.destination(**arguments) == {"name": "tester/m", "visibility": "public"}
        assert where("create_branch", name="x") == {"name": "tester/m", "visibility": ""}


REFUSED = [
    ("merge", {"number": 1, "revision": "0" * 40}, "by now, not at 0000"),
    ("merge", {"number": 1}, "`merge` needs `revision`"),
    ("merge", {"number": 2, "revision": "0" * 40}, "no pull request that is open"),
    ("close", {"number": 3}, "closed already"),
    ("reopen", {"number": 1}, "open already"),
    ("comment", {"number": 1}, "needs `text`"),
    ("comment", {"number": 99, "text": "x"}, "99"),
    ("create_branch", {"name": "main"}, "exists already"),
    ("create_branch", {"name": "x", "revision": "v9"}, "no such revision"),
    ("delete_branch", {"name": "main"}, "cannot be deleted"),
    ("delete_branch", {"name": "none"}, "There is no branch none"),
    ("delete_tag", {"name": "none"}, "There is no tag none"),
    ("create_tag", {}, "needs `name`"),
    ("commit", {"title": "abc"}, "needs `files` or `delete`"),
    ("commit", {"title": "abc", "delete": ["none.txt"]}, "no none.txt to delete"),
    ("commit", {"title": "abc", "files": {"README.md": CARD}}, "Nothing would change"),
    ("commit", {"title": "abc", "files": {"w.safetensors": "x"}}, "Weights go with hub_push"),
    ("commit", {"title": "abc", "files": {"../x": "x"}}, "no path in a repository"),
    ("commit", {"title": "abc", "files": {"a": b"x"}}, "hub_push"),
    ("commit", {"title": "abc", "files": {".env": "x = 'AKIA" + "ABCDEFGHIJKLMNOP'"}}, "Keys or passwords in .env"),
    ("commit", {"title": "ab", "files": {"a": "x"}}, "3 to 200"),
    ("create_discussion", {"title": "abc", "text": "AKIA" + "ABCDEFGHIJKLMNOP"}, "Keys or passwords in text"),
    ("create_pull_request", {"files": {"a": "b"}}, "needs `title`"),
    ("update_settings", {}, "needs `visibility` or `gated`"),
    ("update_settings", {"visibility": "private"}, "private already"),
    ("update_settings", {"visibility": "protected"}, "private or public"),
    ("rename", {"name": "team/m"}, "stays with its owner"),
    ("rename", {}, "repo_id"),
    ("rename", {"name": "open"}, "tester/open exists already"),
    ("duplicate", {"repo_id": "acme/theirs", "name": "tester/m"}, "tester/m exists already"),
    ("create_repo", {}, "exists already"),
    ("create_branch", {"repo_id": "tester/none", "name": "x"}, "knows no model tester/none"),
    ("create_branch", {"repo_id": "short", "name": "x"}, "owner/name"),
    ("delete_repo", {}, "`operation` is one of"),
]


@pytest.mark.parametrize(("operation", "arguments", "said"), REFUSED)
def test_what_would_be_refused_is_never_asked_about(repo, api, operation, arguments, said):
    propose(api)
    api.create_discussion("tester/m", title="A question")
    api.create_discussion("tester/m", title="Another")
    api.change_discussion_status("tester/m", 3, "closed")
    repo.requests.clear()
    made, arguments = asked(operation, **arguments)
    with pytest.raises((ValueError, OSError), match=said):
        made.check(**arguments)
    assert writes_of(repo) == []


ACTS = {
    "create_branch": ("tester/m", {"name": "dev"}),
    "create_tag": ("tester/m", {"name": "v1", "text": "First"}),
    "delete_branch": ("tester/m", {"name": "old"}),
    "delete_tag": ("tester/m", {"name": "gone"}),
    "commit": ("tester/m", {"title": "Fix", "files": {"README.md": BETTER}, "delete": ["ck/"]}),
    "create_pull_request": ("acme/theirs", {"title": "Better words", "text": "See.", "files": {"README.md": BETTER}}),
    "create_discussion": ("acme/theirs", {"title": "A question", "text": "Why?"}),
    "comment": ("tester/m", {"number": 1, "text": "Fine."}),
    "merge": ("tester/m", {"number": 1}),
    "close": ("tester/m", {"number": 1, "text": "No."}),
    "reopen": ("tester/m", {"number": 2}),
    "update_settings": ("tester/m", {"visibility": "public", "gated": "manual"}),
    "rename": ("tester/m", {"name": "tester/m2"}),
    "duplicate": ("acme/theirs", {"name": "tester/copy"}),
    "create_repo": ("tester/new", {}),
}


@pytest.fixture
def acts(repo, api):
    """Everything that `ACTS` needs to be there."""
    api.create_branch("tester/m", branch="old")
    api.create_tag("tester/m", tag="gone")
    head = propose(api).oid
    api.create_discussion("tester/m", title="Closed")
    api.change_discussion_status("tester/m", 2, "closed")
    repo.requests.clear()

    def act(operation):
        repo_id, more = ACTS[operation]
        return asked(operation, repo_id, **more, **({"revision": head} if operation == "merge" else {}))

    return act


@pytest.mark.parametrize("operation", WRITES)
class TestOnce:
    def test_it_happens_and_is_found_again(self, repo, acts, operation):
        made, arguments = acts(operation)
        assert made.reconcile(made.call_id, **arguments) is None
        made.check(**arguments)
        done = made(**arguments)
        validate(done, HubRepoTool.output_schema)
        before = len(writes_of(repo))
        found = made.reconcile(made.call_id, **arguments)
        assert found.keys() <= done.keys()
        assert all(
            found[key] == done[key] for key in found if not (operation.startswith("delete") and key == "commit")
        )
        assert len(writes_of(repo)) == before == len([one for one in writes_of(repo) if one.status == 200])

    def test_an_answer_that_got_lost_is_found(self, repo, acts, operation):
        made, arguments = acts(operation)
        lost = "/commit/" if operation in ("commit", "create_pull_request") else "."
        for method in ("POST", "PUT", "DELETE"):
            repo.fail(lost, drop="answer", method=method)
        with pytest.raises((ConnectionError, ValueError)):
            made(**arguments)
        repo._failures.clear()
        assert made.reconcile(made.call_id, **arguments)

    def test_what_never_arrived_is_not_found(self, repo, acts, operation):
        made, arguments = acts(operation)
        for method in ("POST", "PUT", "DELETE"):
            repo.fail(".", drop=True, method=method, times=None)
        with pytest.raises(ConnectionError):
            made(**arguments)
        repo._failures.clear()
        assert made.reconcile(made.call_id, **arguments) is None


def test_a_branch_of_the_same_name_elsewhere_is_not_this_calls(repo, api):
    commits = api.list_repo_commits("tester/m")
    made, arguments = asked("create_branch", name="dev", revision=commits[0].commit_id)
    api.create_branch("tester/m", branch="dev", revision=commits[1].commit_id)
    assert made.reconcile("call_1", **arguments) is None
    with pytest.raises(ValueError, match="409"):
        made(**arguments)


def test_words_are_left_once_however_often_a_call_is_made(repo, api, acts):
    for operation in ("commit", "create_pull_request", "create_discussion", "comment"):
        made, arguments = acts(operation)
        first = made(**arguments)
        repo.requests.clear()
        assert made(**arguments) == first
        assert writes_of(repo) == []
        made.call_id = "call_other"
        assert made.reconcile("call_other", **arguments) is None


def test_what_each_act_leads_to(repo, api, acts):
    def act(operation):
        made, arguments = acts(operation)
        return made(**arguments)

    sha = api.model_info("tester/m").sha
    assert act("create_branch")["after"] == {"dev": sha}
    assert act("delete_branch")["commit"] == sha
    assert act("create_tag")["after"] == {"v1": sha}
    act("delete_tag")
    refs = api.list_repo_refs("tester/m")
    assert {one.name for one in refs.branches} == {"main", "dev"}
    assert {one.name for one in refs.tags} == {"v1"}
    assert act("merge")["after"] == {"status": "merged"}
    assert repo.read("tester/m", "model", "README.md") == BETTER.encode()
    proposed = act("create_pull_request")
    assert api.get_discussion_details("acme/theirs", proposed["number"]).status == "open"
    assert repo.read("acme/theirs", "model", "README.md") == CARD.encode()
    assert act("update_settings") == {
        "operation": "update_settings",
        "repo_id": "tester/m",
        "url": f"{repo.url}/tester/m",
        "before": {"visibility": "private", "gated": "off"},
        "after": {"name": "tester/m", "visibility": "public", "gated": "manual"},
    }
    assert act("duplicate")["after"]["visibility"] == "private"
    assert api.model_info("tester/copy").private is True
    assert act("rename")["url"] == f"{repo.url}/tester/m2"
    assert api.model_info("tester/m").id == "tester/m2"
    made, arguments = asked("create_repo", "tester/app", repo_type="space")
    made(**arguments)
    assert api.space_info("tester/app").sdk == "gradio"


KEY = "AKIA" + "ABCDEFGHIJKLMNOP"
WITH_A_KEY = {
    "commit": {"title": "Add", "files": {"a.txt": KEY}},
    "create_pull_request": {"title": "Add", "text": KEY, "files": {"a.txt": "x"}},
    "create_discussion": {"title": KEY},
    "comment": {"number": 1, "text": KEY},
    "close": {"number": 1, "text": KEY},
    "create_tag": {"name": "v1", "text": KEY},
}


@pytest.mark.parametrize("operation", WITH_A_KEY)
def test_no_key_goes_out_whatever_was_looked_up_before(repo, api, operation):
    """The Hub was away when the call was made ready, and is back when it is carried out."""
    api.create_discussion("tester/m", title="A question")
    repo.requests.clear()
    made, arguments = asked(operation, **WITH_A_KEY[operation])
    with pytest.raises(ValueError, match="Keys or passwords"):
        made(**arguments)
    assert writes_of(repo) == []


def test_a_pull_request_that_moved_on_is_not_merged(repo, api):
    """Read at one commit, approved at it, and then somebody pushed to it."""
    head = propose(api).oid
    made, arguments = asked("merge", number=1, revision=head)
    made.check(**arguments)
    operations = [CommitOperationAdd("evil.py", b"1")]
    api.create_commit("tester/m", operations=operations, commit_message="more", revision="refs/pr/1")
    with pytest.raises(ValueError, match="Not merged"):
        made(**arguments)
    assert api.get_discussion_details("tester/m", 1).status == "open"


def test_a_commit_does_not_overwrite_what_came_after_its_difference_was_shown(repo, api):
    made, arguments = asked("commit", title="Fix", files={"README.md": BETTER})
    made.preview(**arguments)
    operations = [CommitOperationAdd("README.md", CARD.replace("old", "their").encode())]
    api.create_commit("tester/m", operations=operations, commit_message="theirs")
    with pytest.raises(ValueError, match="412"):
        made(**arguments)
    assert b"their words" in repo.read("tester/m", "model", "README.md")


class Way:
    """A router and a gate, as an agent ties them together."""

    def __init__(self, *rules, mode="ask", says="reject"):
        self.asked = []
        self.says = says
        policy = ApprovalPolicy.of(rules, [], mode, trust_vouched=False, own=["tester"])
        self.gate = ApprovalGate(policy, self.ask, masker=Masker({}))
        self.router = ToolRouter(self.fire, Masker({}))
        self.router["hub_repo"] = HubRepoTool()

    def fire(self, step):
        if isinstance(step, ToolCallStep):
            self.gate(step)

    def ask(self, request):
        self.asked.append(request)
        return ApprovalAnswer(self.says, by="me")

    def call(self, operation, repo_id="tester/m", **more):
        return self.router["hub_repo"](operation=operation, repo_id=repo_id, **more)


class TestAsked:
    def test_by_its_operation(self):
        for operation in HubRepoTool.effects:
            assert effects_of(HubRepoTool(), {"operation": operation}) == ("read" if operation in READS else "write")
        assert effects_of(HubRepoTool(), {"operation": "delete_repo"}) == "unknown"
        assert effects_of(HubRepoTool(), {}) == "unknown"

    @pytest.mark.parametrize("operation", WRITES)
    def test_nothing_is_changed_unasked(self, repo, acts, operation):
        for mode in ("ask", "plan", "auto", "deny"):
            way = Way(mode=mode)
            _, arguments = acts(operation)
            with pytest.raises(Denied):
                way.router["hub_repo"](**arguments)
            assert len(way.asked) == (mode in ("ask", "auto"))
        assert writes_of(repo) == []

    def test_reading_is_free_in_every_mode(self, repo):
        for mode in ("ask", "plan", "auto", "deny"):
            way = Way(mode=mode)
            assert way.call("refs")["branches"]
            assert way.call("settings", "acme/theirs")["settings"]
            assert way.asked == []

    def test_a_rule_for_private_ones_lets_nothing_become_public(self, repo, api, acts):
        rule = "hub_repo:me/*:private"
        assert Way(rule).call("create_branch", name="dev")["after"]
        assert Way(rule).call("create_repo", "tester/new")["after"]
        for operation, repo_id, more in (
            ("update_settings", "tester/m", {"visibility": "public"}),
            ("update_settings", "tester/open", {"visibility": "private"}),
            ("create_branch", "tester/open", {"name": "x"}),
            ("create_repo", "tester/seen", {"visibility": "public"}),
            ("duplicate", "tester/m", {"name": "copy", "visibility": "public"}),
            ("duplicate", "tester/m", {"name": "acme/copy"}),
            ("create_discussion", "acme/theirs", {"title": "A question"}),
        ):
            way = Way(rule)
            with pytest.raises(Denied):
                way.call(operation, repo_id, **more)
            assert len(way.asked) == 1, (operation, more)

    def test_somebody_elses_repository_is_always_asked_about(self, repo):
        way = Way("hub_repo", says="approve")
        assert way.call("create_discussion", "acme/theirs", title="A question")["number"] == 1
        (request,) = way.asked
        assert request.destination.name == "acme/theirs"
        assert "A new discussion: A question" in request.preview

    def test_the_call_gets_its_id(self, repo, api):
        way = Way(says="approve")
        way.call("create_discussion", title="A question", text="Why?")
        text = api.get_discussion_details("tester/m", 1).events[0].content
        assert text == f"Why?\n\n<!-- ml-intern-call: {way.asked[0].call_id} -->"


@pytest.mark.long
def test_it_survives_saving(repo):
    call = {"operation": "refs", "repo_id": "tester/m"}
    found = assert_survives_saving(HubRepoTool, "huggingface_hub", call=call, environment=repo.environment())
    assert list(found["branches"]) == ["main"]


def test_looking_things_up_is_bounded_in_time(repo):
    made, arguments = asked("commit", title="Fix", files={"README.md": BETTER})
    started = time.monotonic()
    made.check(**arguments)
    made.destination(**arguments)
    made.preview(**arguments)
    assert time.monotonic() - started < 3
    assert len(repo.requests) <= 8  # check, destination and preview look at the same
