"""The unmodified official client against the local Hub."""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, HfApi, HfFileSystem, RepoCard
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session

from ml_intern.testing.hub import LocalHub, User

USERS = {"hf_ann": User("ann", ("acme",)), "hf_bob": "bob", "hf_reader": User("ann", role="read")}


@pytest.fixture
def hub(tmp_path):
    with LocalHub(tmp_path / "hub", USERS) as service:
        yield service


@pytest.fixture
def api(hub):
    return as_user(hub, "hf_ann")


def as_user(hub: LocalHub, token: str | bool) -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


def in_own_process(hub: LocalHub, code: str, *arguments: Path) -> dict:
    """Runs code with `api` in a process that has only the Hub's own variables; returns what it puts into `result`."""
    whole = "import json, sys\nfrom huggingface_hub import HfApi\napi, result = HfApi(), {}\n"
    whole += f"{code}\nprint(json.dumps(result))"
    variables = {"PATH": os.environ["PATH"], **hub.environment()}
    command = [sys.executable, "-c", whole, *map(str, arguments)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def requested(hub: LocalHub, method: str, part: str) -> list[str]:
    return [one.path for one in hub.requests if one.method == method and part in one.path]


@pytest.mark.long
def test_folder_with_large_file_goes_up_and_comes_back(hub, tmp_path):
    folder, back = tmp_path / "folder", tmp_path / "back"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Hello\n")
    (folder / "deep" / "er" / "ümlaut & more.txt").write_text("text")
    (folder / "weights.bin").write_bytes(os.urandom(12_000_000))
    code = """
folder, back = sys.argv[1:]
api.create_repo("ann/model", private=True)
result["first"] = api.upload_folder(repo_id="ann/model", folder_path=folder).oid
result["again"] = api.upload_folder(repo_id="ann/model", folder_path=folder).oid
api.snapshot_download("ann/model", local_dir=back)
info = api.model_info("ann/model", files_metadata=True)
result["private"], result["sha"] = info.private, info.sha
result["lfs"] = {file.rfilename: file.lfs.sha256 for file in info.siblings if file.lfs}
"""
    result = in_own_process(hub, code, folder, back)
    ours = files_of(folder)
    theirs = {path: data for path, data in files_of(back).items() if not path.startswith((".cache", ".gitattributes"))}
    assert theirs == ours
    assert result["lfs"] == {"weights.bin": hashlib.sha256(ours["weights.bin"]).hexdigest()}
    assert result["private"]
    assert result["first"] == result["again"] == result["sha"]
    assert len(requested(hub, "POST", "/commit/")) == 1
    assert len(requested(hub, "PUT", "/lfs/")) == 1
    assert len(requested(hub, "GET", "/cdn/")) == 1


def test_everything_is_there_after_a_restart(hub, api, tmp_path):
    api.create_repo("acme/data", repo_type="dataset")
    oid = api.upload_file(
        repo_id="acme/data", repo_type="dataset", path_or_fileobj=b"a\n1\n", path_in_repo="a.csv"
    ).oid
    api.create_discussion("acme/data", "A question", repo_type="dataset")
    api.create_tag("acme/data", tag="v1", repo_type="dataset")
    hub.seed("ann/gated", "model", {"a.bin": b"a"}, gated="manual", likes=3)
    hub.admit("ann/gated", "model", "bob")
    api.upload_file(repo_id="ann/gated", path_or_fileobj=b"b", path_in_repo="b.txt", create_pr=True)
    api.move_repo("ann/gated", "acme/moved")
    api.update_repo_settings("acme/moved", gated=False, private=True)
    api.create_repo("ann/deleted")
    api.delete_repo("ann/deleted")
    before = hub.store.repos
    hub.close()
    journal = tmp_path / "hub" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"op":"delete","type":"dataset","id":"acme/da')  # torn
    with LocalHub(tmp_path / "hub", USERS) as again:
        api = as_user(again, "hf_ann")
        assert again.store.repos == before
        assert api.dataset_info("acme/data").sha == oid
        assert api.model_info("ann/gated").id == "acme/moved"
        assert again.read("acme/data", "dataset", "a.csv", "v1") == b"a\n1\n"
        assert [one.title for one in api.get_repo_discussions("acme/data", repo_type="dataset")] == ["A question"]
        api.create_repo("acme/more")
    with LocalHub(tmp_path / "hub", USERS) as again:
        assert as_user(again, "hf_ann").repo_exists("acme/more")


def test_hub_starts_again_at_the_same_address(hub, api):
    url = hub.url
    hub.seed("acme/model", "model", {"a.txt": b"a"})
    hub.close()
    with hub:
        assert hub.url == url
        assert api.file_exists("acme/model", "a.txt")
        api.upload_file(repo_id="acme/model", path_or_fileobj=b"b", path_in_repo="a.txt")
        assert hub.read("acme/model", "model", "a.txt") == b"b"


def test_folder_belongs_to_one_hub_at_a_time(hub, tmp_path):
    with pytest.raises(RuntimeError, match="in use by another local Hub"):
        LocalHub(tmp_path / "hub")


def test_listing_over_a_thousand_repositories(hub, api):
    for number in range(1050):
        card = f"---\nlicense: {'mit' if number % 2 else 'apache-2.0'}\npipeline_tag: fill-mask\n---\n".encode()
        hub.seed(f"acme/bert-{number:04}", "model", {"README.md": card}, downloads=number % 7)
    hub.seed("bob/gpt", "model")
    names = [model.id for model in api.list_models()]
    assert len(names) == len(set(names)) == 1051
    assert len(requested(hub, "GET", "/api/models")) == 2
    assert len(list(api.list_models(filter=["license:mit", "fill-mask"]))) == 525
    assert len(list(api.list_models(pipeline_tag="fill-mask", author="acme"))) == 1050
    assert [model.id for model in api.list_models(search="BERT 104", sort="created_at", limit=2)] == [
        "acme/bert-1049",
        "acme/bert-1048",
    ]
    downloads = [model.downloads for model in api.list_models(sort="downloads")]
    assert downloads == sorted(downloads, reverse=True)
    assert list(api.list_models(author="nobody")) == []
    assert list(api.list_models(filter="license:gpl")) == []


def test_page_goes_on_where_the_last_one_ended(hub, api):
    for number in range(10):
        hub.seed(f"acme/set-{number}", "dataset", likes=number // 3)
    first = requests_page(api, f"{hub.url}/api/datasets?limit=4")
    api.delete_repo("acme/set-9", repo_type="dataset")  # was shown
    api.create_repo("acme/new", repo_type="dataset")
    rest = requests_page(api, first[1])
    rest_ids = rest[0] + requests_page(api, rest[1])[0]
    assert sorted(first[0] + rest_ids) == sorted([f"acme/set-{number}" for number in range(10)] + ["acme/new"])


def requests_page(api: HfApi, url: str) -> tuple[list[str], str]:
    answer = get_session().get(url, headers={"authorization": f"Bearer {api.token}"})
    return [one["id"] for one in answer.json()], answer.links.get("next", {}).get("url", "")


def test_listing_shows_what_was_asked_for(hub, api):
    hub.seed("acme/a", "model", {"README.md": b"---\nlicense: mit\n---\n", "config.json": b'{"model_type": "bert"}'})
    (plain,) = api.list_models()
    assert (plain.cardData, plain.siblings, plain.sha, plain.library_name) == (None, None, None, "transformers")
    (full,) = api.list_models(full=True, cardData=True, fetch_config=True)
    assert full.cardData.license == "mit"
    assert {"README.md", "config.json"} <= {one.rfilename for one in full.siblings}
    assert full.config == {"model_type": "bert"}
    (expanded,) = api.list_models(expand=["downloads", "author"])
    assert (expanded.downloads, expanded.author, expanded.tags) == (0, "acme", None)


def test_a_list_shows_less_than_a_page_of_its_own_and_refuses_the_rest(hub, api):
    """As the Hub does: a client that asks for `usedStorage` of a list gets nothing at all."""
    hub.seed("acme/a", "dataset", {"a.csv": b"x" * 100})
    assert api.dataset_info("acme/a", expand=["usedStorage"]).used_storage > 100
    (shown,) = api.list_datasets(expand=["mainSize"])
    assert shown.main_size == sum(one.size for one in api.list_repo_tree("acme/a", repo_type="dataset"))
    for ask, name in ((api.list_datasets, "usedStorage"), (api.list_models, "usedStorage"), (api.list_models, "sdk")):
        with pytest.raises(HfHubHTTPError, match=r"Invalid option: expected one of .author.*at expand.0."):
            list(ask(expand=[name]))


def test_filter_that_is_not_supported_is_refused(api):
    with pytest.raises(HfHubHTTPError, match="cannot filter by"):
        list(api.list_spaces(datasets="acme/a"))
    with pytest.raises(HfHubHTTPError, match='must be such as "min:6B,max:128B"'):
        list(api.list_models(num_parameters="large"))


def weights(**shapes: list[int]) -> bytes:
    head = {name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text


def test_models_are_filtered_by_size_provider_app_and_dataset(hub, api):
    config = b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    hub.seed("acme/small", "model", {"config.json": config, "model.safetensors": weights(a=[1000, 10])})
    hub.seed("acme/large", "model", {"model.safetensors": weights(a=[1000, 4_000_000])}, providers=["novita"])
    hub.seed("acme/on", "model", {"README.md": b"---\ndatasets: [acme/reviews]\n---\n", "m.gguf": b"GGUF"})

    def found(**filters):
        return sorted(model.id for model in api.list_models(**filters))

    assert found(num_parameters="min:1B,max:4B") == found(num_parameters="min:4B") == ["acme/large"]
    assert found(num_parameters="max:10K") == ["acme/small"]
    assert found(inference_provider="novita") == found(inference_provider="all") == found(inference="warm")
    assert found(inference_provider="novita") == ["acme/large"]
    assert found(inference_provider="groq") == []
    assert (found(apps="vllm"), found(apps=["ollama", "jan"])) == (["acme/small"], ["acme/on"])
    assert found(trained_dataset="acme/reviews") == ["acme/on"]
    (mapping,) = api.model_info("acme/large", expand=["inferenceProviderMapping"]).inference_provider_mapping
    assert (mapping.provider, mapping.status) == ("novita", "live")


def test_evaluation_results_are_read_from_their_files_and_bad_ones_are_named(hub, api):
    good = b"- dataset: {id: cais/hle, task_id: default}\n  value: 20.9\n  date: 2026-01-02\n"
    hub.seed("acme/a", "model", {".eval_results/hle.yaml": good, ".eval_results/bad.yaml": b"- value: 1\n"})
    (one,) = api.model_info("acme/a", expand=["evalResults"]).eval_results
    assert (one.dataset_id, one.task_id, one.value) == ("cais/hle", "default", 20.9)


def test_heads_of_weights_are_read_by_range(hub, api):
    many = {f"layer_{number}": [2, 3] for number in range(3000)}  # 240 kB of head: two ranges
    hub.seed("acme/a", "model", {"model.safetensors": weights(**many) + bytes(1_000_000)})
    hub.requests.clear()
    found = api.parse_safetensors_file_metadata("acme/a", "model.safetensors")
    assert found.parameter_count == {"BF16": 18_000}
    assert [one.headers["range"].startswith("bytes=") for one in hub.requests if "/cdn/" in one.path] == [True, True]
    assert not [one for one in hub.requests if "/cdn/" in one.path and "authorization" in one.headers]


def test_kinds_of_data_become_tags(hub, api):
    features = b"---\ndataset_info:\n  features:\n  - {name: a, dtype: string}\n  - {name: b, dtype: int64}\n---\n"
    hub.seed("acme/a", "dataset", {"README.md": features, "train/x.png": b"x"})
    assert {"modality:text", "modality:tabular", "modality:image"} <= set(api.dataset_info("acme/a").tags)
    assert [one.id for one in api.list_datasets(filter="modality:image")] == ["acme/a"]


def test_private_repository_is_invisible_to_others(hub, api, tmp_path):
    hub.seed("acme/secret", "model", {"a.txt": b"hidden"}, private=True)
    assert api.model_info("acme/secret").private
    assert [model.id for model in api.list_models()] == ["acme/secret"]
    for token in ("hf_bob", False):
        other = as_user(hub, token)
        assert list(other.list_models()) == []
        with pytest.raises(RepositoryNotFoundError):
            other.model_info("acme/secret")
        with pytest.raises(RepositoryNotFoundError):
            other.list_repo_files("acme/secret")
        with pytest.raises(RepositoryNotFoundError):
            other.hf_hub_download("acme/secret", "a.txt", cache_dir=tmp_path / "cache")
        with pytest.raises(RepositoryNotFoundError):
            other.upload_file(repo_id="acme/secret", path_or_fileobj=b"", path_in_repo="b")
    api.update_repo_settings("acme/secret", private=False)
    assert as_user(hub, "hf_bob").repo_exists("acme/secret")


def test_gated_repository_shows_itself_but_not_its_files(hub, tmp_path):
    hub.seed("acme/gated", "model", {"a.txt": b"inside"}, gated="auto")
    bob = as_user(hub, "hf_bob")
    assert bob.model_info("acme/gated").gated == "auto"
    with pytest.raises(GatedRepoError):
        bob.hf_hub_download("acme/gated", "a.txt", cache_dir=tmp_path / "cache")
    hub.admit("acme/gated", "model", "bob")
    assert Path(bob.hf_hub_download("acme/gated", "a.txt", cache_dir=tmp_path / "cache")).read_bytes() == b"inside"


def test_wrong_token_and_missing_rights(hub):
    assert as_user(hub, "hf_ann").whoami()["orgs"][0]["name"] == "acme"
    with pytest.raises(HfHubHTTPError) as wrong:
        as_user(hub, "hf_wrong").whoami()
    assert wrong.value.response.status_code == 401
    for token, name in (("hf_bob", "acme/x"), ("hf_reader", "ann/x")):
        with pytest.raises(HfHubHTTPError) as refused:
            as_user(hub, token).create_repo(name)
        assert refused.value.response.status_code == 403
    assert hub.store.repos == {}


def test_download_resumes_where_it_broke_off(hub, api, tmp_path):
    data = os.urandom(24_000_000)
    hub.seed("acme/large", "model", {"weights.bin": data})
    hub.fail("^/cdn/", drop=15_000_000)
    path = api.hf_hub_download("acme/large", "weights.bin", cache_dir=tmp_path / "cache")
    assert Path(path).read_bytes() == data
    ranges = [one.headers.get("range") for one in hub.requests if one.path.startswith("/cdn/")]
    assert ranges[0] is None
    assert ranges[1].startswith("bytes=")
    assert ranges[1] != "bytes=0-"


def test_content_is_not_for_everyone_who_knows_its_digest(hub, api):
    hub.seed("acme/large", "model", {"weights.bin": b"1"})
    digest = hashlib.sha256(b"1").hexdigest()
    assert get_session().get(f"{hub.url}/cdn/{digest}").status_code == 403
    assert get_session().get(f"{hub.url}/cdn/{digest}?signature=wrong").status_code == 403


def test_file_system_reads_pieces(hub):
    hub.seed("acme/data", "dataset", {"dir/numbers.txt": b"0123456789" * 1000})
    files = HfFileSystem(endpoint=hub.url, token="hf_ann", use_listings_cache=False)
    assert files.ls("datasets/acme/data/dir", detail=False) == ["datasets/acme/data/dir/numbers.txt"]
    with files.open("datasets/acme/data/dir/numbers.txt", block_size=16) as file:
        file.seek(5003)
        assert file.read(4) == b"3456"


def test_pull_request_and_merge(hub, api):
    hub.seed("acme/model", "model", {"a.txt": b"one\n", "b.txt": b"b"})
    bob = as_user(hub, "hf_bob")
    change = CommitOperationAdd("a.txt", b"two\n")
    made = bob.create_commit("acme/model", [change], commit_message="Better a", create_pr=True)
    assert made.pr_num == 1
    assert hub.read("acme/model", "model", "a.txt") == b"one\n"
    assert hub.read("acme/model", "model", "a.txt", "refs/pr/1") == b"two\n"
    details = api.get_discussion_details("acme/model", 1)
    assert (details.status, details.is_pull_request, details.author) == ("open", True, "bob")
    assert "-one\n+two\n" in details.diff
    assert [event.type for event in details.events] == ["comment", "commit"]
    api.comment_discussion("acme/model", 1, "Thanks")
    with pytest.raises(HfHubHTTPError):
        bob.merge_pull_request("acme/model", 1)
    api.merge_pull_request("acme/model", 1)
    assert hub.read("acme/model", "model", "a.txt") == b"two\n"
    merged = api.get_discussion_details("acme/model", 1)
    assert merged.status == "merged"
    assert merged.merge_commit_oid == api.model_info("acme/model").sha


def test_pull_request_that_conflicts_is_not_merged(hub, api):
    hub.seed("acme/model", "model", {"a.txt": b"one"})
    api.create_commit("acme/model", [CommitOperationAdd("a.txt", b"pr")], commit_message="PR", create_pr=True)
    api.upload_file(repo_id="acme/model", path_or_fileobj=b"main", path_in_repo="a.txt")
    assert api.get_discussion_details("acme/model", 1).conflicting_files == ["a.txt"]
    with pytest.raises(HfHubHTTPError) as refused:
        api.merge_pull_request("acme/model", 1)
    assert refused.value.response.status_code == 409
    assert hub.read("acme/model", "model", "a.txt") == b"main"


def test_pull_request_is_a_branch_to_commit_to(hub, api):
    hub.seed("acme/model", "model")
    number = api.create_pull_request("acme/model", "Add a file").num
    api.upload_file(repo_id="acme/model", path_or_fileobj=b"new", path_in_repo="c.txt", revision=f"refs/pr/{number}")
    api.merge_pull_request("acme/model", number)
    assert hub.read("acme/model", "model", "c.txt") == b"new"
    api.rename_discussion("acme/model", number, "Added a file")
    assert [one.title for one in api.get_repo_discussions("acme/model", discussion_type="pull_request")] == [
        "Added a file"
    ]


def test_comments_are_edited_and_hidden(hub, api):
    hub.seed("acme/model", "model")
    bob = as_user(hub, "hf_bob")
    number = bob.create_discussion("acme/model", "Question", description="Frist").num
    (comment,) = bob.get_discussion_details("acme/model", number).events
    edited = bob.edit_discussion_comment("acme/model", number, comment.id, "First")
    assert (edited.content, edited.edited, edited.edit_history[0]["raw"]) == ("First", True, "Frist")
    api.comment_discussion("acme/model", number, "Answer")
    with pytest.raises(HfHubHTTPError):
        answer = bob.get_discussion_details("acme/model", number).events[1]
        bob.edit_discussion_comment("acme/model", number, answer.id, "Mine")
    api.change_discussion_status("acme/model", number, "closed")
    with pytest.warns(UserWarning, match="Hiding"):
        api.hide_discussion_comment("acme/model", number, comment.id)
    details = api.get_discussion_details("acme/model", number)
    assert [event.type for event in details.events] == ["comment", "comment", "status-change"]
    assert (details.status, details.events[0].hidden, details.events[0].content) == ("closed", True, "")
    assert list(api.get_repo_discussions("acme/model", discussion_status="open")) == []


def test_creating_what_exists(hub, api):
    url = api.create_repo("acme/space", repo_type="space", space_sdk="gradio")
    assert url.repo_id == "acme/space"
    assert api.create_repo("acme/space", repo_type="space", space_sdk="gradio", exist_ok=True) == url
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo("acme/space", repo_type="space", space_sdk="gradio")
    assert refused.value.response.status_code == 409
    assert api.space_info("acme/space").sdk == "gradio"
    assert [space.id for space in api.list_spaces(filter="gradio")] == ["acme/space"]


def test_clients_that_commit_at_once_lose_nothing(hub, api):
    hub.seed("acme/busy", "model")

    def commit(number: int) -> str:
        data, name = f"{number}".encode(), f"{number}.txt"
        return api.upload_file(repo_id="acme/busy", path_or_fileobj=data, path_in_repo=name).oid

    with ThreadPoolExecutor(8) as pool:
        oids = list(pool.map(commit, range(16)))
    assert {f"{number}.txt" for number in range(16)} <= set(api.list_repo_files("acme/busy"))
    history = [one.commit_id for one in api.list_repo_commits("acme/busy")]
    assert len(history) == 17
    assert set(oids) == set(history[:-1])


def test_of_two_commits_on_one_parent_one_is_refused(hub, api):
    parent = hub.seed("acme/busy", "model").refs["refs/heads/main"]

    def commit(number: int) -> int:
        change = CommitOperationAdd("same.txt", f"{number}".encode())
        try:
            api.create_commit("acme/busy", [change], commit_message="Mine", parent_commit=parent)
        except HfHubHTTPError as error:
            return error.response.status_code
        return 200

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(commit, range(4))) == [200, 412, 412, 412]
    assert len(api.list_repo_commits("acme/busy")) == 2


def test_delete_move_and_duplicate(hub, api):
    hub.seed("acme/old", "model", {"a.txt": b"a"})
    api.duplicate_repo("acme/old", "ann/copy", private=True)
    assert hub.read("ann/copy", "model", "a.txt") == b"a"
    api.move_repo("acme/old", "ann/new")
    assert api.model_info("acme/old").id == "ann/new"  # the old name leads on
    api.delete_repo("ann/new")
    assert not api.repo_exists("ann/new")
    assert not api.repo_exists("acme/old")
    api.delete_repo("ann/new", missing_ok=True)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("ann/new")


def test_branches_tags_and_revisions(hub, api):
    hub.seed("acme/model", "model", {"a.txt": b"1"})
    api.create_tag("acme/model", tag="v1", tag_message="First")
    api.create_branch("acme/model", branch="dev/two")
    api.upload_file(repo_id="acme/model", path_or_fileobj=b"2", path_in_repo="a.txt", revision="dev/two")
    refs = api.list_repo_refs("acme/model")
    assert [one.name for one in refs.branches] == ["dev/two", "main"]
    assert [one.ref for one in refs.tags] == ["refs/tags/v1"]
    assert hub.read("acme/model", "model", "a.txt", "dev/two") == b"2"
    assert hub.read("acme/model", "model", "a.txt", "v1") == b"1"
    sha = api.model_info("acme/model", revision="dev/two").sha
    assert api.model_info("acme/model", revision=sha).sha == sha
    with pytest.raises(HfHubHTTPError):
        api.create_branch("acme/model", branch="dev/two")
    api.create_branch("acme/model", branch="dev/two", exist_ok=True)
    api.delete_branch("acme/model", branch="dev/two")
    api.delete_tag("acme/model", tag="v1")
    assert len(api.list_repo_refs("acme/model").branches) == 1
    with pytest.raises(RevisionNotFoundError):
        api.model_info("acme/model", revision="dev/two")
    with pytest.raises(HfHubHTTPError):
        api.delete_branch("acme/model", branch="main")


def test_tree_and_paths(hub, api):
    hub.seed("acme/model", "model", {"a/b/c.txt": b"c", "a/d.bin": b"d", "e.txt": b"e"})
    api.upload_file(repo_id="acme/model", path_or_fileobj=b"later", path_in_repo="e.txt", commit_message="Later")
    top = {one.path for one in api.list_repo_tree("acme/model")}
    assert top == {".gitattributes", "a", "e.txt"}
    assert [one.path for one in api.list_repo_tree("acme/model", "a", recursive=True)] == [
        "a/b",
        "a/b/c.txt",
        "a/d.bin",
    ]
    (inside,) = api.get_paths_info("acme/model", ["a/d.bin", "nothing"], expand=True)
    assert inside.lfs.sha256 == hashlib.sha256(b"d").hexdigest()
    assert inside.last_commit.title == "Upload files"
    assert api.get_paths_info("acme/model", "e.txt", expand=True)[0].last_commit.title == "Later"
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("acme/model", "nowhere"))
    assert api.file_exists("acme/model", "a/b/c.txt")
    assert not api.file_exists("acme/model", "a/b")


def test_large_tree_comes_in_pages(hub, api):
    hub.seed("acme/many", "dataset", {f"{number:04}.txt": b"x" for number in range(2500)})
    assert len(api.list_repo_files("acme/many", repo_type="dataset")) == 2501
    assert len(requested(hub, "GET", "/tree/")) == 3


def test_commit_deletes_copies_and_ignores(hub, api):
    hub.seed("acme/model", "model", {"a/1.txt": b"1", "a/2.txt": b"2", "b.txt": b"b", "w.bin": b"large"})
    api.delete_folder("a", "acme/model")
    api.delete_file("b.txt", "acme/model")
    assert set(api.list_repo_files("acme/model")) == {".gitattributes", "w.bin"}
    with pytest.raises(EntryNotFoundError):
        api.delete_file("b.txt", "acme/model")
    api.create_commit("acme/model", [CommitOperationCopy("w.bin", "copy.bin")], commit_message="Copy")
    assert hub.read("acme/model", "model", "copy.bin") == b"large"
    changes = [CommitOperationAdd(".gitignore", b"*.log\nbuild/\n!keep.log\n")]
    changes += [CommitOperationAdd(path, b"x") for path in ("x.log", "keep.log", "build/y.txt", "z.txt")]
    api.create_commit("acme/model", changes, commit_message="Ignore")
    assert {"keep.log", "z.txt"} == set(api.list_repo_files("acme/model")) - {
        ".gitattributes",
        ".gitignore",
        "w.bin",
        "copy.bin",
    }


def test_card_gives_tags(hub, api, tmp_path):
    card = b"""---
license: mit
language: [en, no]
task_categories: [text-classification]
tags: [reviews]
---
# Reviews

From https://arxiv.org/abs/1706.03762v7 and [another](https://huggingface.co/papers/2401.00001).
"""
    hub.seed("acme/reviews", "dataset", {"README.md": card, "train.csv": b"a\n1\n"})
    tags = set(api.dataset_info("acme/reviews").tags)
    assert {"license:mit", "language:en", "language:no", "reviews", "format:csv"} <= tags
    assert {"task_categories:text-classification", "arxiv:1706.03762", "arxiv:2401.00001"} <= tags
    for wanted in ("arxiv:2401.00001", ["license:mit", "language:en"]):
        assert [one.id for one in api.list_datasets(filter=wanted)] == ["acme/reviews"]
    assert [one.id for one in api.list_datasets(task_categories="text-classification")] == ["acme/reviews"]
    assert list(api.list_datasets(task_categories="translation")) == []
    path = api.hf_hub_download("acme/reviews", "README.md", repo_type="dataset", cache_dir=tmp_path)
    assert RepoCard.load(path).data.license == "mit"


def test_model_card_and_files_give_task_library_and_parameters(hub, api):
    head = json.dumps({"w": {"dtype": "F32", "shape": [3, 5], "data_offsets": [0, 60]}}).encode()
    files = {
        "README.md": b"---\nbase_model: acme/base\ndatasets: [acme/reviews]\n---\n",
        "config.json": b'{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}',
        "model.safetensors": len(head).to_bytes(8, "little") + head + bytes(60),
    }
    hub.seed("acme/model", "model", files)
    info = api.model_info("acme/model")
    assert (info.pipeline_tag, info.library_name) == ("text-classification", "transformers")
    assert info.safetensors.parameters == {"F32": 15}
    assert {"safetensors", "dataset:acme/reviews", "base_model:finetune:acme/base"} <= set(info.tags)


@pytest.mark.parametrize("front", ["license: [unclosed", "pipeline_tag: 3", "- just\n- a list"])
def test_bad_card_is_refused(hub, api, front):
    hub.seed("acme/model", "model")
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.upload_file(
            repo_id="acme/model", path_or_fileobj=f"---\n{front}\n---\n".encode(), path_in_repo="README.md"
        )
    assert not api.file_exists("acme/model", "README.md")


@pytest.mark.parametrize("path", ["../out", "a/../../out", "/etc/passwd", "a//b", ".git/config"])
def test_path_that_leaves_the_repository_is_refused(hub, api, path):
    hub.seed("acme/model", "model")
    assert post_commit(f"{hub.url}/api/models/acme/model/commit/main", "hf_ann", path, "x") == 400
    assert set(api.list_repo_files("acme/model")) == {".gitattributes"}


def post_commit(url: str, token: str, path: str, content: str) -> int:
    file = {"content": content, "path": path}
    lines = [{"key": "header", "value": {"summary": "x"}}, {"key": "file", "value": file}]
    body = "\n".join(map(json.dumps, lines)).encode()
    return get_session().post(url, headers={"authorization": f"Bearer {token}"}, content=body).status_code


def test_commit_whose_answer_is_lost_has_happened(hub, api):
    hub.seed("acme/model", "model")
    hub.fail("/commit/main", drop="answer")
    with pytest.raises(Exception, match=r"[Dd]isconnect|reset|closed"):
        api.upload_file(repo_id="acme/model", path_or_fileobj=b"x", path_in_repo="a.txt")
    assert hub.read("acme/model", "model", "a.txt") == b"x"
    assert hub.requests[-1].status == 0


def test_commit_that_never_arrives_has_not_happened(hub, api):
    hub.seed("acme/model", "model")
    hub.fail("/commit/main", drop=True)
    with pytest.raises(Exception, match=r"[Dd]isconnect|reset|closed"):
        api.upload_file(repo_id="acme/model", path_or_fileobj=b"x", path_in_repo="a.txt")
    assert not api.file_exists("acme/model", "a.txt")


def test_client_retries_what_is_overloaded(hub, api):
    hub.seed("acme/model", "model")
    hub.fail("/preupload/", status=503, times=1)
    api.upload_file(repo_id="acme/model", path_or_fileobj=b"x", path_in_repo="a.txt")
    assert [one.status for one in hub.requests if "/preupload/" in one.path] == [503, 200]


def test_acknowledged_commits_survive_a_kill(tmp_path):
    command = [sys.executable, "-m", "ml_intern.testing.serve", "hub", "--data", str(tmp_path)]
    acknowledged: dict[str, bytes] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip().partition("=")[2]
        api = HfApi(endpoint=url, token="hf_local")
        api.create_repo("tester/busy")

        def commit() -> None:
            # By hand: the client would try for half a minute to reach a Hub that is gone.
            for number in range(10_000):
                path, data = f"{number}.txt", os.urandom(20_000).hex()
                assert post_commit(f"{url}/api/models/tester/busy/commit/main", "hf_local", path, data) == 200
                acknowledged[path] = data.encode()

        with ThreadPoolExecutor(1) as pool:
            going = pool.submit(commit)
            while len(acknowledged) < 5:
                assert not going.done()
            process.kill()
            assert isinstance(going.exception(), Exception)
    with LocalHub(tmp_path) as hub:
        assert len(acknowledged) >= 5
        for path, data in acknowledged.items():
            assert hub.read("tester/busy", "model", path) == data
