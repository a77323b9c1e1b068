"""Publishing, against a local Hub with the unmodified client."""

import copy
import hashlib
import io
import json
import pickle
import re
import zipfile

import pytest
import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import validate_repo_id
from ml_intern.tools import HubPushTool
from saving import assert_survives_saving

from ml_intern.execution.workspace import Workspace
from ml_intern.router import ToolRouter

EVALUATION = {
    "task": "text-classification",
    "dataset": "acme/reviews",
    "split": "test",
    "metric": "accuracy",
    "baseline": 0.8,
    "candidate": 0.9,
    "n": 500,
}
WEIGHTS = bytes(range(256)) * 100
MODEL = {"folder": "out", "repo_id": "sentiment", "metadata": {"license": "mit"}, "evaluation": EVALUATION}
DATA = {"folder": "data", "repo_id": "films", "repo_type": "dataset", "metadata": {"license": "mit"}}


def lay(workspace, files):
    for name, content in files.items():
        workspace.write_bytes(name, content)


@pytest.fixture
def push(hub, workspace):
    files = {"out/model.safetensors": WEIGHTS, "out/sub/config.json": b"{}", "data/train.csv": b"a,b\n1,2\n"}
    lay(workspace, files)
    tool = HubPushTool(workspace)
    tool.call_id = "call_1"
    return tool


def commits(hub, repo_id="tester/sentiment", repo_type="model"):
    return HfApi(endpoint=hub.url, token=hub.token).list_repo_commits(repo_id, repo_type=repo_type)


def card(hub, repo_id="tester/sentiment", repo_type="model"):
    return hub.read(repo_id, repo_type, "README.md").decode()


def test_a_model_goes_up_in_one_private_commit(push, hub):
    done = push(**MODEL, commit_message="First try")
    newest, _ = commits(hub)
    assert (newest.commit_id, newest.title) == (done["commit_sha"], "First try")
    assert "ml-intern-call: call_1" in newest.message.splitlines()
    size = len(WEIGHTS) + 2 + len(card(hub))
    assert done == {
        "repo_id": "tester/sentiment",
        "url": hub.url + "/tester/sentiment",
        "commit_sha": newest.commit_id,
        "commit_url": f"{hub.url}/tester/sentiment/commit/{newest.commit_id}",
        "created": True,
        "private": True,
        "pull_request": None,
        "files": 3,
        "bytes": size,
    }
    assert set(done) == set(HubPushTool.output_schema["properties"])
    assert hub.read("tester/sentiment", "model", "model.safetensors") == WEIGHTS
    assert hub.read("tester/sentiment", "model", "sub/config.json") == b"{}"
    assert hub.store.find("model", "tester/sentiment").visibility == "private"


def test_an_update_adds_a_commit_and_says_so(push, hub, workspace):
    push(**MODEL)
    lay(workspace, {"out/sub/config.json": b'{"a": 1}'})
    push.call_id = "call_2"
    done = push(**MODEL)
    assert (done["created"], done["private"]) == (False, True)
    assert len(commits(hub)) == 3
    assert hub.read("tester/sentiment", "model", "sub/config.json") == b'{"a": 1}'
    assert card(hub).count("## Evaluation") == 1


def test_datasets_spaces_and_other_namespaces(push, hub, workspace):
    assert push(**DATA)["url"] == hub.url + "/datasets/tester/films"
    assert hub.read("tester/films", "dataset", "train.csv") == b"a,b\n1,2\n"
    assert push(**{**DATA, "repo_id": "team/films"})["repo_id"] == "team/films"
    lay(workspace, {"app/app.py": b"print('hi')"})
    space = {"folder": "app", "repo_id": "team/app", "repo_type": "space"}
    assert push(**space, metadata={"sdk": "gradio"})["url"] == hub.url + "/spaces/team/app"
    with pytest.raises(ValueError, match="'sdk': 'gradio'"):
        push(**{**space, "repo_id": "team/app2"}, metadata={"title": "x"})
    assert hub.store.find("space", "team/app2") is None


class TestOnce:
    def test_a_call_is_carried_out_once(self, push, hub):
        done = push(**MODEL)
        assert push(**MODEL) == done
        assert len(commits(hub)) == 2

    def test_a_commit_whose_answer_got_lost_is_found(self, push, hub):
        hub.fail("/commit/", drop="answer")
        with pytest.raises(ConnectionError, match="the commit to model tester/sentiment"):
            push(**MODEL)
        found = push.reconcile("call_1", **MODEL)
        assert found["commit_sha"] == commits(hub)[0].commit_id
        assert (found["created"], found["files"]) == (True, 3)
        assert push(**MODEL) == found
        assert len(commits(hub)) == 2

    def test_a_commit_that_never_arrived_is_not_found_and_made(self, push, hub):
        hub.fail("/commit/", drop=True)
        with pytest.raises(ConnectionError):
            push(**MODEL)
        assert push.reconcile("call_1", **MODEL) is None
        push(**MODEL)
        assert len(commits(hub)) == 2

    def test_reconcile_knows_one_call_from_another(self, push):
        assert push.reconcile("call_1", **MODEL) is None
        done = push(**MODEL)
        assert push.reconcile("call_1", **MODEL) == done
        assert push.reconcile("call_10", **MODEL) is None
        assert push.reconcile("call_", **MODEL) is None

    def test_reconcile_does_not_say_no_when_it_cannot_know(self, push, hub):
        push(**MODEL)
        hub.fail("/commits/", status=401, body={"error": "x"}, headers={"X-Error-Message": "no"})
        with pytest.raises(OSError):
            push.reconcile("call_1", **{**MODEL, "repo_id": "tester/sentiment"})
        hub.close()
        with pytest.raises(ConnectionError):
            push.reconcile("call_1", **MODEL)


def judged(**changes):
    return {**MODEL, "evaluation": {**EVALUATION, **changes}}


class TestEvaluation:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"candidate": 0.842},  # z = 1.73
            {"candidate": 1.0, "baseline": 0.9, "n": 100},
            {"metric": "error", "candidate": 0.1, "baseline": 0.2, "higher_is_better": False},
            {"metric": "perplexity", "candidate": 12.5, "baseline": 14.0, "higher_is_better": False},
            {"metric": "bleu", "candidate": 31, "baseline": 30},
            {"candidate": 0.81, "p_value": 0.049},  # z = 0.40
            {"metric": "bleu", "candidate": 31, "baseline": 30, "p_value": 0},
        ],
    )
    def test_better(self, push, changes):
        assert push(**judged(**changes))["commit_sha"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"candidate": 0.838}, r"accuracy 0.838 against a baseline of 0.8 on 500 .*not better by .*z = 1.56"),
            ({"candidate": 0.8}, "z = 0.00"),
            ({"candidate": 0.7}, "z = -3.68"),
            ({"candidate": 1.0, "baseline": 0.5, "n": 2}, "not better by more than chance"),
            ({"higher_is_better": False}, "not better"),
            ({"metric": "perplexity", "candidate": 14.1, "baseline": 14.0, "higher_is_better": False}, "not better"),
            ({"candidate": float("nan")}, "must be numbers"),
            ({"candidate": "0.9"}, "must be numbers"),
            ({"n": 0}, "n at least 1"),
            ({"p_value": 0.05}, r"not better by more than chance \(claimed paired test: p = 0.05, needs less"),
            ({"candidate": 0.7, "p_value": 0.001}, r"not better by more than chance \(claimed paired test: p = 0.001"),
            ({"metric": "bleu", "candidate": 31, "baseline": 30, "p_value": 0.2}, "not better"),
            ({"p_value": float("nan")}, "p_value must be a number from 0 to 1, not nan"),
            ({"p_value": -0.1}, "p_value must be a number from 0 to 1"),
            ({"p_value": "0.01"}, "p_value must be a number from 0 to 1"),
        ],
    )
    def test_not_better(self, push, hub, changes, message):
        with pytest.raises(ValueError, match=message):
            push(**judged(**changes))
        assert hub.store.find("model", "tester/sentiment") is None

    def test_a_paired_test_is_shown_as_what_was_claimed(self, push, hub):
        paired = judged(candidate=0.81, p_value=0.0123)
        claim = "better by more than chance (claimed paired test: p = 0.0123, needs less than 0.05)."
        assert f"acme/reviews, test: {claim}" in push.preview(**paired)
        push(**paired)
        assert claim in card(hub)

    def test_none_or_half_of_one(self, push, hub):
        with pytest.raises(ValueError, match="needs `evaluation`: measure it"):
            push(**{**MODEL, "evaluation": None})
        with pytest.raises(ValueError, match="lacks split, n"):
            push(**{**MODEL, "evaluation": {k: v for k, v in EVALUATION.items() if k not in ("split", "n")}})
        assert hub.store.find("model", "tester/sentiment") is None

    def test_publishing_anyway_is_told_in_capitals_and_written_into_the_card(self, push, hub):
        worse = judged(candidate=0.7)
        preview = push.preview(**worse, publish_anyway=True)
        assert "PUBLISHED ANYWAY, THOUGH NOT SHOWN TO BE BETTER" in preview
        assert "WILL BE REFUSED" not in preview
        assert "WILL BE REFUSED" in push.preview(**worse)
        push(**worse, publish_anyway=True)
        assert "model-index" in card(hub)
        assert "not better by more than chance (z = -3.68" in card(hub)

    def test_the_card_of_a_model_published_without_one_says_so(self, push, hub):
        push(**{**MODEL, "evaluation": {"candidate": 0.9}}, publish_anyway=True)
        assert "Not evaluated on held-out examples." in card(hub)
        assert "model-index" not in card(hub)

    def test_only_models_have_one(self, push):
        with pytest.raises(ValueError, match="`evaluation` is for models"):
            push(**DATA, evaluation=EVALUATION)

    def test_the_card_carries_it_by_the_rules_of_the_hub(self, push, hub):
        push(**judged(task="Text Classification", candidate=0.9 + 1e-9, baseline=0.8 - 1e-9))
        data = ModelCard(card(hub)).data
        (result,) = data.eval_results
        assert data.license == "mit"
        assert result.task_name == "Text Classification"
        assert result.metric_args == {"baseline": 0.8, "n": 500, "split": "test"}
        assert (result.task_type, result.dataset_type, result.dataset_split) == (
            "text-classification",
            "acme/reviews",
            "test",
        )
        assert (result.metric_type, result.metric_value) == ("accuracy", 0.9)
        assert "| accuracy | acme/reviews | test | 500 | 0.8 | 0.9 |" in card(hub)


class Kept:
    """Records of a session, as the tool sees them."""

    def __init__(self, folder, evaluations=(), experiments=()):
        self.held_out, self.rows = folder, {"evaluation": list(evaluations), "experiment": list(experiments)}

    def all(self, kind):
        return self.rows[kind]


def measured(push, **changes):
    """An evaluation of what lies in `out`, as evaluate_model leaves it."""
    digests = {"model.safetensors": WEIGHTS, "sub/config.json": b"{}"}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in digests.items()}
    side = {"name": "majority", "value": 0.5, "interval": [0.45, 0.55], "method": "exact (Clopper-Pearson), 95 %"}
    mine = {**side, "name": "mine", "value": 0.9, "interval": [0.87, 0.93], "folder": "runs/a/model"}
    mine["weights_sha256"] = push._weights_sha256(digests)
    dataset = {"id": "acme/reviews", "config": "default", "split": "test", "revision": "a" * 40}
    test = {"value": 0.4, "interval": [0.3, 0.5], "p_value": 1e-9, "test": "McNemar, exact, two-sided"}
    return {
        "id": "eval_0123456789ab", "held_out": "held_0123456789ab", "task": "classification", "dataset": dataset, "n": 500,
        "metric": "accuracy", "higher_is_better": True, "baseline": side, "candidate": mine, "difference": test,
        "better": True, "metrics": {"accuracy": {"baseline": 0.5, "candidate": 0.9}, "mcc": {"baseline": 0, "candidate": 0.8}},
        "per_class": {"a|b": {"precision": 0.9, "recall": None, "f1": 0.9, "n": 250}}, "problems": [], "warnings": [],
        "contamination": {"checked": True, "rows": 0, "train_rows": 900}, "by": "harness", "looks": 2, "secrecy": "Kept.",
        "provenance": {"checked": True, "base": "acme/base", "verdict": "derived", "revision": "d" * 40}, "plots": ["x/comparison.png"],
        "script": "train.py", "experiment": "run_0123456789ab",
        "run": {"method": "text-classification", "base_model": "acme/base", "base_revision": "c" * 40,
                "splits": {"train": ["train", "extra"], "validation": "3 folds of train", "test": None}, "dataset": "acme/reviews", "seed": 7,
                "dataset_revision": "b" * 40, "hyperparameters": {"lr": 1e-5, "bf16": False, "lora": {"r": 8}}, "versions": {"torch": "2.1"}, "seconds": 61},
        **changes,
    }  # fmt: skip


MINE = "# Mine\n\n## Limits\n\nReviews in English only.\n"


def against_the_hub(text):
    """What of a card breaks the rules that the Hub's documentation has for its metadata."""
    data, wrong = yaml.safe_load(text.split("---\n")[1]), []
    for index in data.get("model-index") or []:
        wrong += (
            []
            if isinstance(index.get("name"), str) and index["results"]
            else ["a model-index without name or results"]
        )
        for result in index["results"]:
            kinds = [result["task"].get("type"), result["dataset"].get("type"), result["dataset"].get("name")]
            wrong += [f"no text: {kinds}"] if not all(isinstance(kind, str) and kind for kind in kinds) else []
            wrong += [kinds[0]] if kinds[0] not in TASKS else []
            for metric in result["metrics"]:
                fits = isinstance(metric.get("type"), str) and isinstance(metric.get("value"), int | float)
                wrong += [] if fits and isinstance(metric.get("args", {}), dict) else [str(metric)]
    wrong += [] if data.get("pipeline_tag") in TASKS else [f"task {data.get('pipeline_tag')}"]
    wrong += [] if re.fullmatch(r"[a-z0-9.-]+", data.get("license", "")) else ["licence"]
    wrong += (
        [] if data.get("base_model_relation") in (None, "adapter", "finetune", "merge", "quantized") else ["relation"]
    )
    for name in ("datasets", "base_model"):
        listed = data.get(name) or []
        for one in [listed] if isinstance(listed, str) else listed:
            validate_repo_id(one)
    return wrong


TASKS = {  # of the Hub, as https://huggingface.co/tasks has them, those that a model may be evaluated at here
    "text-classification", "token-classification", "text-generation", "sentence-similarity", "image-classification",
    "audio-classification", "tabular-classification", "tabular-regression",
}  # fmt: skip
RUN = {
    "id": "run_0123456789ab",
    "metric": {"name": "eval_accuracy", "value": 0.912345},
    "config": {"hardware": "t4-small", "arguments": ["--seed", "7"]},
    "cost_usd": 0.4,
}
PLOT = b"\x89PNG plot"


class TestMeasuredByTheHost:
    @pytest.fixture
    def shipped(self, push, tmp_path):
        """Pushes what was measured; `changes` are to the evaluation."""
        folder = tmp_path / "held_out/held_0123456789ab/eval_0123456789ab"
        folder.mkdir(parents=True)
        (folder / "comparison.png").write_bytes(PLOT)
        (folder / "train.py").write_text("print('train')\n")

        def prepare(**changes):
            push.records = Kept(tmp_path / "held_out", [measured(push, **changes)], [RUN])
            return push

        return prepare

    CALL = {**MODEL, "evaluation": "eval_0123456789ab", "card": MINE}

    def test_the_card_has_figures_training_and_how_to_make_it_again(self, shipped, hub):
        tool = shipped()
        shown = tool.preview(**self.CALL)
        assert "Evaluation: accuracy 0.9 (0.87 to 0.93) against 0.5 (0.45 to 0.55) of majority" in shown
        assert "evaluation/comparison.png  13, of the evaluation" in shown.replace(f"{len(PLOT)}", "13")
        assert "WILL BE REFUSED" not in shown and "!!" not in shown
        tool(**self.CALL)
        assert hub.read("tester/sentiment", "model", "evaluation/comparison.png") == PLOT
        assert hub.read("tester/sentiment", "model", "train.py") == b"print('train')\n"
        there = card(hub)
        for line in (
            "| accuracy (95 %) | 0.5000 (0.4500 to 0.5500) | 0.9000 (0.8700 to 0.9300) |",
            "| a\\|b | 0.900 |   | 0.900 | 250 |",
            "**Better than the baseline by more than chance**: +0.4000 (95 %: +0.3000 to +0.5000; McNemar",
            "![comparison](evaluation/comparison.png)",
            "Predictions and figures were made by the host of the agent, not by its code.",
            "It is number 2 of the candidates that were scored on these rows.",
            "Of 500 held-out rows 0 are in the 900 training rows",
            "The weights compared with acme/base: derived.",
            "| hyperparameters | lr 1e-05, bf16 no, lora r 8 |",
            "| trained on | train/extra |",
            "| validated on | 3 folds of train |",
            "| validation result | eval_accuracy 0.9123 |",
            "| hardware | t4-small |",
            "| cost | $0.40 |",
            "uv run train.py --seed 7",
        ):
            assert line in there, line
        assert not re.search(r"[{}]", there.split("---\n", 2)[2])  # nothing of it is JSON
        data = ModelCard(there).data
        assert (data.base_model, data.datasets, data.pipeline_tag) == (
            "acme/base",
            ["acme/reviews"],
            "text-classification",
        )
        first, second = data.eval_results
        assert (first.metric_type, first.metric_value, first.dataset_revision) == ("accuracy", 0.9, "a" * 40)
        assert first.metric_args["interval_95"] == [0.87, 0.93] and second.metric_type == "mcc"

    def test_it_keeps_the_rules_of_the_hub(self, shipped, hub):
        tool = shipped()
        tool(**{**self.CALL, "metadata": {"license": "mit", "language": ["en"], "tags": ["a"], "model-index": None}})
        assert against_the_hub(card(hub)) == []

    def test_a_base_in_the_workspace_is_no_model_of_the_hub(self, shipped, hub):
        record = measured(shipped())
        run = {**record["run"], "base_model": "runs/base", "base_revision": None}
        shipped(run=run, provenance={**record["provenance"], "base": "runs/base", "revision": None})(**self.CALL)
        assert "base_model" not in ModelCard(card(hub)).data.to_dict() and "| base model | runs/base |" in card(hub)

    def test_a_card_without_limits_is_told_of(self, shipped):
        assert "!! The card names no limits" in shipped().preview(**{**self.CALL, "card": "# Mine\n"})

    def test_classes_that_a_picture_may_only_number(self, shipped, hub):
        figures = {"precision": 0.9, "recall": 0.9, "f1": 0.9, "n": 250}
        shipped(per_class={"भारत": figures, "b" * 25: figures})(**self.CALL)
        assert (
            "| # | class |" in card(hub)
            and "\n| 1 | भारत | 0.900 |" in card(hub)
            and f"\n| 2 | {'b' * 25} |" in card(hub)
        )

    @pytest.mark.parametrize("name", ["tester/sentiment", "sentiment"])
    def test_how_to_make_it_again_is_one_command(self, shipped, hub, name):
        tool = shipped()
        shown = tool.preview(**{**self.CALL, "repo_id": name})
        tool(**{**self.CALL, "repo_id": name})
        assert card(hub).split("---\n", 2)[2].strip() in shown
        (command,) = re.findall(r"```bash\n(.*)\n```", card(hub))
        fetch, change, make = command.split(" && ")
        assert fetch == "uvx --from huggingface_hub hf download tester/sentiment --local-dir sentiment"
        assert (change, make) == ("cd sentiment", "uv run train.py --seed 7")

    @pytest.mark.parametrize(
        ("metadata", "said"),
        [
            ({"license": "Apache 2.0"}, "`license` is an identifier such as apache-2.0, not 'Apache 2.0'"),
            ({"license": "mit", "pipeline_tag": "Text Classification"}, "`pipeline_tag` is one of the Hub's tasks"),
            ({"license": "mit", "tags": [1]}, "`tags` is a text or a list of texts"),
            ({"license": "mit", "datasets": ["my data"]}, "`datasets`: Repo id"),
            ({"license": "mit", "library_name": ["a"]}, "`library_name` is a text"),
            ({"license": "mit", "base_model_relation": "child"}, "`base_model_relation` is adapter"),
        ],
    )
    def test_what_the_hub_would_refuse_is_known_before_anyone_is_asked(self, shipped, hub, metadata, said):
        with pytest.raises(ValueError, match=re.escape(said)):
            shipped().check(**{**self.CALL, "metadata": metadata})

    def test_what_the_card_says_itself_stays(self, shipped, hub):
        shipped()(**{**self.CALL, "metadata": {"license": "mit", "base_model": "acme/other", "tags": ["mine"]}})
        data = ModelCard(card(hub)).data
        assert data.base_model == "acme/other" and set(data.tags) == {"mine", "ml-intern"}
        assert "base_model_relation" not in data.to_dict()

    def test_a_second_push_puts_new_figures_in_the_place_of_the_old(self, shipped, hub, workspace):
        shipped()(**self.CALL)
        newer = shipped()
        newer.call_id = "call_2"
        lay(workspace, {"out/notes.md": b"hello"})
        shown = newer.preview(**self.CALL)
        assert "model.safetensors  25,600, is there already" in shown and "README.md stays as it is." in shown
        assert "sub/config.json  2, is there already" in shown and "notes.md  5\n" in shown
        (newer.records.held_out / "held_0123456789ab/eval_0123456789ab/train.py").write_text("print('again')\n")
        assert "train.py  15, takes the place of what is there (15), of" not in newer.preview(**self.CALL)
        assert "train.py  15, takes the place of what is there, of the evaluation" in newer.preview(**self.CALL)
        newer(**self.CALL)
        assert card(hub).count("## Evaluation") == card(hub).count("## Training") == 1

    def test_other_weights_than_those_that_were_evaluated(self, shipped, hub, workspace):
        tool = shipped()
        lay(workspace, {"out/model.safetensors": WEIGHTS[:-1] + b"x"})
        with pytest.raises(ValueError, match=r"eval_0123456789ab is of other weights: of those in runs/a/model"):
            tool(**self.CALL)
        assert hub.store.find("model", "tester/sentiment") is None
        assert "PUBLISHED ANYWAY: eval_0123456789ab is of other weights" in tool.preview(
            **self.CALL, publish_anyway=True
        )
        tool(**self.CALL, publish_anyway=True)
        assert "Not evaluated on held-out examples." in card(hub)
        assert not re.search(r"model-index|0\.9000|comparison", card(hub))  # figures of other weights stand on no card

    @pytest.mark.parametrize("name", ["out/second.safetensors", "out/tokenizer.json", "out/pytorch_model.bin"])
    def test_weights_or_a_tokenizer_beside_them(self, shipped, workspace, name):
        tool = shipped()
        lay(workspace, {name: b"{}"})
        with pytest.raises(ValueError, match="is of other weights"):
            tool(**self.CALL)

    def test_what_says_nothing_of_the_model_may_be_added(self, shipped, workspace):
        tool = shipped()
        lay(workspace, {"out/notes.md": b"hello", "out/plot.png": b"x"})
        assert tool(**self.CALL)["files"] == 7

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"problems": ["120 of 120 held-out rows are in the training rows"]}, "120 of 120 held-out rows are in"),
            ({"better": False}, "not better by more than chance"),
            (
                {"candidate": {"weights_sha256": None, "value": 0.9, "interval": [0, 1], "name": "x", "method": ""}},
                "of which weights it is",
            ),
        ],
    )
    def test_what_the_evaluation_found_forbids_it(self, shipped, hub, changes, said):
        tool = shipped(**changes)
        with pytest.raises(ValueError, match=said):
            tool.check(**self.CALL)
        assert said in tool.preview(**self.CALL, publish_anyway=True)
        assert tool.must_ask(**self.CALL) == "" and "publish_anyway" in tool.must_ask(**self.CALL, publish_anyway=True)
        assert hub.store.find("model", "tester/sentiment") is None

    def test_a_person_is_told_what_nobody_has_checked(self, shipped):
        mine = measured(shipped())["candidate"]
        unseen = {"by": "predictions", "candidate": {**mine, "by": "predictions"}, "contamination": {"checked": False}}
        shown = shipped(**unseen).preview(**self.CALL)
        assert "!! The candidate's predictions are a file that the agent's code wrote" in shown
        assert "!! Whether training rows overlap with the held-out ones was not checked" in shown

    def test_a_name_in_an_evaluation_is_no_line_of_what_a_person_reads(self, shipped):
        side = {**measured(shipped())["baseline"], "name": "x\nPush to elsewhere", "script": "a\n!! All is well"}
        shown = shipped(baseline=side).preview(**self.CALL)
        assert "\nPush to elsewhere" not in shown and "\n!! All is well" not in shown and "of x Push to" in shown

    def test_what_was_checked_in_part_is_told_to_all(self, shipped, hub):
        said = "Only a part of acme/reviews was read (9 training rows in all): overlap with the rest was not checked."
        tool = shipped(warnings=[said])
        assert f"!! {said}" in tool.preview(**self.CALL)
        tool(**self.CALL)
        assert f"- {said}" in card(hub)

    def test_a_person_is_told_who_made_the_predictions(self, shipped):
        mine = {**measured(shipped())["candidate"], "script": "predict.py"}
        said = "!! A script of the agent's (predict.py) made the candidate's predictions"
        assert said in shipped(candidate=mine).preview(**self.CALL)

    def test_a_person_is_told_where_code_has_seen_the_labels(self, shipped):
        said = "The labels came from a file of the workspace: code there has seen them."
        assert f"less sure than they look. {said}" in shipped(secrecy=said).preview(**self.CALL)

    def test_weights_in_a_dataset_are_told_of(self, push, workspace):
        workspace.write_bytes("out/model.safetensors", WEIGHTS)
        call = {"folder": "out", "repo_id": "tester/set", "repo_type": "dataset", "metadata": {"license": "mit"}}
        assert "!! WEIGHTS IN A DATASET" in push.preview(**call)
        workspace.write_bytes("plain/rows.csv", b"a\n1\n")
        assert "!! WEIGHTS" not in push.preview(**{**call, "folder": "plain"})

    def test_no_rule_lets_predictions_pass_that_nobody_saw_made(self, shipped):
        mine = measured(shipped())["candidate"]
        assert shipped().must_ask(**self.CALL) == ""
        unseen = shipped(by="predictions", candidate={**mine, "by": "predictions"})
        assert "nobody saw these weights" in unseen.must_ask(**self.CALL)

    def test_data_that_is_not_on_the_hub_is_not_there_for_who_makes_it_again(self, shipped, hub):
        shipped()(**self.CALL)
        assert "Its data is pinned to a commit." in card(hub)
        run = {**measured(shipped())["run"], "dataset": "data/mine", "dataset_revision": None}
        tool = shipped(run=run)
        tool.call_id = "another"
        tool(**self.CALL)
        assert "It reads data/mine: files of the agent's workspace, which are not in here." in card(hub)

    def test_an_evaluation_that_nobody_made(self, shipped):
        with pytest.raises(ValueError, match="no evaluation 'eval_ffffffffffff' on record"):
            shipped()(**{**MODEL, "evaluation": "eval_ffffffffffff"})
        tool = shipped()
        tool.records = None
        with pytest.raises(ValueError, match="no evaluation"):
            tool(**self.CALL)

    def test_figures_of_the_agents_own_where_the_host_could_have_measured(self, shipped, hub):
        with pytest.raises(ValueError, match="figures are the agent's own"):
            shipped()(**MODEL)
        shown = shipped().preview(**MODEL, publish_anyway=True)
        assert "!! FIGURES BY THE AGENT, NOT MEASURED BY THIS HOST" in shown and "WILL BE REFUSED" not in shown
        shipped()(**MODEL, publish_anyway=True)
        assert "| accuracy | acme/reviews | test | 500 | 0.8 | 0.9 |" in card(hub)

    def test_words_of_the_data_do_nothing_on_the_card(self, shipped, hub):
        data = {"id": "x|y <script>", "config": None, "split": "te`st", "revision": None}
        shipped(dataset=data, secrecy="<img src=x> [a](http://b)", plots=["../../../etc/passwd", "a b.png"])(
            **self.CALL
        )
        there = card(hub).split("---\n")[-1]
        assert (
            "\n<img" not in there and "- \\<img src=x\\> \\[a\\](http://b)" in there and "x\\|y \\<script\\>" in there
        )

    def test_a_key_in_the_script_that_goes_along(self, shipped, hub, tmp_path):
        tool = shipped()
        script = tmp_path / "held_out/held_0123456789ab/eval_0123456789ab/train.py"
        script.write_text("token = 'hf_" + "aB3" * 12 + "'")
        with pytest.raises(ValueError, match=r"Keys or passwords in train\.py"):
            tool(**self.CALL)


class TestPullRequest:
    @pytest.fixture
    def theirs(self, push, hub):
        hub.seed("acme/films", "dataset", {"README.md": b"---\nlicense: mit\n---\n# Films\n"})
        return {**DATA, "repo_id": "acme/films", "private": False}

    def test_where_the_repository_is_anothers(self, push, hub, theirs):
        assert "AS A PULL REQUEST, which its owner decides on" in push.preview(**theirs)
        before = commits(hub, "acme/films", "dataset")
        done = push(**theirs)
        assert done["pull_request"] == f"{hub.url}/datasets/acme/films/discussions/1"
        assert commits(hub, "acme/films", "dataset") == before  # nothing is changed before its owner says so
        assert push(**theirs) == push.reconcile("call_1", **theirs) == done
        assert push.reconcile("call_2", **theirs) is None

    def test_its_answer_got_lost(self, push, hub, theirs):
        hub.fail("/commit/", drop="answer")
        with pytest.raises(ConnectionError):
            push(**theirs)
        assert push(**theirs)["pull_request"].endswith("/discussions/1")

    def test_on_request_in_ones_own(self, push, hub, workspace):
        push(**DATA)
        lay(workspace, {"data/more.csv": b"a\n"})
        push.call_id = "call_2"
        done = push(**DATA, create_pr=True)
        assert done["pull_request"] and push.reconcile("call_2", **DATA, create_pr=True) == done
        assert len(commits(hub, "tester/films", "dataset")) == 2


class TestCard:
    def test_metadata_is_merged_into_front_matter(self, push, hub):
        text = "---\ntags: [a, b]\nlicense: mit\nlanguage: en\n---\n# Mine\n\nBody.\n"
        push(**{**DATA, "metadata": {"tags": ["b", "c"], "license": "apache-2.0"}}, card=text)
        about = hub.store.find("dataset", "tester/films")
        assert about is not None
        written = card(hub, "tester/films", "dataset")
        data = ModelCard(written).data.to_dict()
        assert (data["tags"], data["license"], data["language"]) == (["a", "b", "c"], "apache-2.0", "en")
        assert "# Mine\n\nBody." in written

    def test_the_readme_of_the_folder_is_the_card_unless_one_is_given(self, push, hub, workspace):
        lay(workspace, {"data/README.md": b"---\nlicense: mit\n---\n# From the folder\n"})
        push(**{**DATA, "metadata": None})
        assert "# From the folder" in card(hub, "tester/films", "dataset")
        push.call_id = "call_2"
        push(**{**DATA, "metadata": None}, card="# Given\n")
        assert card(hub, "tester/films", "dataset").endswith("# Given\n")
        assert "From the folder" not in card(hub, "tester/films", "dataset")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"metadata": None}, "Pass `card` or `metadata`"),
            ({"card": "---\n[broken: yaml\n---\nx"}, "front matter is not YAML"),
            ({"repo_id": "no good!"}, "`repo_id`"),
        ],
    )
    def test_no_card_no_push(self, push, hub, changes, message):
        with pytest.raises(ValueError, match=message):
            push(**{**DATA, **changes})
        assert not [request for request in hub.requests if request.method == "POST"]


def archive(**files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name.replace("__", "/"), content)
    return file.getvalue()


def array(descr):
    header = repr({"descr": descr, "fortran_order": False, "shape": (1,), "}": ""}).encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


PICKLE = pickle.dumps({"a": [1, 2, 3]})


class TestPickle:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("model.pkl", b"anything"),
            ("model.pickle.gz", b"anything"),
            ("model.joblib", b"anything"),
            ("pytorch_model.bin", PICKLE),
            ("model.dat", PICKLE),
            ("model.pt", PICKLE + b"raw storage follows"),
            ("new.pt", archive(archive__data__pkl=b"").replace(b"data/pkl", b"data.pkl")),
            (
                "model.npz",
                archive(weights__npy=b"").replace(b"s/npy", b"s.npy")[:0] or archive(**{"w.npy": array("|O")}),
            ),
            ("model.npy", array("|O")),
        ],
    )
    def test_refused_but_for_allow_pickle(self, push, hub, workspace, name, content):
        lay(workspace, {f"out/{name}": content})
        with pytest.raises(ValueError, match=rf"{name}: pickle runs code.*safetensors, npz, onnx or skops"):
            push(**MODEL)
        assert hub.store.find("model", "tester/sentiment") is None
        preview = push.preview(**MODEL, allow_pickle=True)
        assert f"PICKLE FILES, WHICH RUN CODE WHEN THEY ARE LOADED: {name}" in preview
        assert push(**MODEL, allow_pickle=True)["files"] == 4

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("model.npz", archive(**{"w.npy": array("<f4")})),
            ("model.bin", b"\x00\x01raw"),
            ("a.png", b"\x89PNG."),
            ("x", b""),
        ],
    )
    def test_what_is_none_passes(self, push, workspace, name, content):
        lay(workspace, {f"out/{name}": content})
        assert push(**MODEL)["files"] == 4


class TestSecrets:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            (".env", b"A=1"),
            ("conf/.env.local", b"A=1"),
            ("id_rsa", b"x"),
            ("keys/id_ed25519", b"x"),
            (".netrc", b"x"),
            ("a.txt", b"token: hf_" + b"aB3" * 12),
            ("a.py", b"key='sk-" + b"aB3" * 10 + b"'"),
            ("a.py", b"sk-proj-" + b"a-_4" * 10),
            ("a.cfg", b"AKIAIOSFODNN7EXAMPLE"),
            ("a.yml", b"pat=ghp_" + b"aB3" * 12),
            ("a.yml", b"github_pat_" + b"aB3_" * 12),
            ("a.yml", b"xoxb-" + b"123-" * 6),
            ("a.js", b"'AIza" + b"aB3-_" * 7 + b"'"),
            ("a.txt", b"-----BEGIN RSA PRIVATE KEY-----"),
            ("late.txt", b"x" * 3_999_990 + b"-----BEGIN OPENSSH PRIVATE KEY-----"),
            ("own.txt", b"what this machine knows: correct-horse-battery"),
            ("log.txt", b"Bearer hf_local_token"),
        ],
    )
    def test_files_that_look_like_keys_are_named_and_stay(self, push, hub, workspace, monkeypatch, name, content):
        monkeypatch.setenv("SOME_PASSWORD", "correct-horse-battery")
        lay(workspace, {f"out/{name}": content})
        with pytest.raises(ValueError, match=f"Keys or passwords in {name}\\. Remove them") as caught:
            push(**MODEL)
        assert b"aB3aB3" not in str(caught.value).encode()
        assert "correct-horse" not in str(caught.value)
        assert hub.store.find("model", "tester/sentiment") is None

    def test_in_the_card_and_the_message_too(self, push):
        key = "hf_" + "aB3" * 12
        for changes in ({"card": key}, {"metadata": {"license": key}}, {"evaluation": {**EVALUATION, "dataset": key}}):
            with pytest.raises(ValueError, match=r"Keys or passwords in README.md"):
                push(**{**MODEL, **changes})
        with pytest.raises(ValueError, match=r"Keys or passwords in commit_message"):
            push(**MODEL, commit_message=key)

    def test_what_only_resembles_a_key_passes(self, push, workspace):
        lay(
            workspace,
            {
                "out/notes.md": b"use sk-learn-like pipelines, hf_hub_download and .env.example, task-" + b"aB3" * 12,
                "out/.env.example": b"A=",
            },
        )
        assert push(**MODEL)["files"] == 5


class TestPreview:
    def test_a_new_repository(self, push, hub):
        text = push.preview(**MODEL)
        assert f"Push to {hub.url}/tester/sentiment (model; new repository, private)" in text
        assert "model.safetensors  25,600" in text
        assert (
            "Evaluation: accuracy 0.9 against a baseline of 0.8 on 500 held-out examples of acme/reviews, test" in text
        )
        assert "README.md (new):" in text
        assert "license: mit" in text
        assert not [request for request in hub.requests if request.method != "GET"]

    def test_public_is_said_in_capitals(self, push):
        assert "NEW REPOSITORY, PUBLIC: EVERYONE CAN READ IT" in push.preview(**MODEL, private=False)

    def test_an_update_shows_what_changes_in_the_card(self, push):
        push(**MODEL)
        text = push.preview(**{**MODEL, "metadata": {"license": "apache-2.0"}})
        assert "exists, is private" in text
        assert "-license: mit\n+license: apache-2.0" in text
        assert "README.md stays as it is." in push.preview(**MODEL)

    def test_the_hub_is_down(self, push, hub):
        hub.close()
        text = push.preview(**MODEL)
        assert "whether it exists is unknown" in text
        assert "cannot be reached" in text
        assert "model.safetensors" in text

    def test_nothing_in_it_can_pass_for_something_else(self, push, workspace):
        lay(workspace, {"out/a\nPush to elsewhere": b"x"})
        text = push.preview(**MODEL, card="# Mine\n\x1b[2J\u202eGood")
        assert "\nPush to elsewhere" not in text
        assert "\\nPush to elsewhere" in text
        assert "\x1b" not in text
        assert "\u202e" not in text

    def test_links_and_caches_are_left_out(self, push, hub, workspace):
        (workspace.root / "out/passwd").symlink_to("/etc/passwd")
        lay(workspace, {"out/__pycache__/a.pyc": b"x", "out/.git/config": b"x"})
        assert "Left out: .git/config, __pycache__/a.pyc" in push.preview(**MODEL)
        assert push(**MODEL)["files"] == 3


class TestCheck:
    def test_what_will_be_refused_is_known_before_anyone_is_asked(self, push, hub):
        hub.close()
        assert push.check(**MODEL, private=True) is None
        for wrong in (judged(candidate=0.7), {**MODEL, "metadata": None}, {**MODEL, "repo_id": "no good"}):
            with pytest.raises(ValueError, match="Not pushed to"):
                push.check(**wrong)

    def test_files_are_scanned_once_for_check_preview_and_call(self, push, workspace):
        push.check(**MODEL)
        scanned = push._scanned
        assert [file.path for file in scanned[0]] == ["out/model.safetensors", "out/sub/config.json"]
        push.preview(**MODEL)
        call = copy.copy(push)
        call(**MODEL)
        assert push._scanned is call._scanned is scanned
        assert pickle.loads(pickle.dumps(scanned)) == scanned
        assert pickle.loads(pickle.dumps(HubPushTool()))._scanned == (None, [], [])

    def test_a_file_that_changed_since_is_scanned_again(self, push, workspace):
        assert push.check(**MODEL) is None
        lay(workspace, {"out/a.txt": b"hf_" + b"aB3" * 12})
        for step in (push.check, push):
            with pytest.raises(ValueError, match=r"Keys or passwords in a\.txt"):
                step(**MODEL)
        lay(workspace, {"out/a.txt": b"nothing"})
        assert push.check(**MODEL) is None

    def test_a_router_freezes_what_is_shown_and_sends_that(self, hub, workspace):
        lay(workspace, {"out/a.txt": b"as approved"})
        steps = []

        def fire(step):
            steps.append(step)
            lay(workspace, {"out/a.txt": b"changed while a person was reading"})

        router = ToolRouter(fire)
        router.services["workspace"] = lambda: workspace
        router["hub_push"] = HubPushTool()
        call = {"folder": "/workspace/out", "repo_id": "notes", "repo_type": "dataset", "metadata": {"license": "mit"}}
        done = router["hub_push"](**call)
        assert "new repository, private" in steps[0].preview
        assert [file.path for file in steps[0].files] == ["out/a.txt"]
        assert hub.read("tester/notes", "dataset", "a.txt") == b"as approved"
        assert HubPushTool(workspace).reconcile(steps[0].call_id, **call) == done
        with pytest.raises(ValueError, match="A model needs `evaluation`"):
            router["hub_push"](**{**call, "repo_type": "model"})
        assert isinstance(steps[-2].problem, ValueError)


STORY = "## How this came about\n\nIn session `1`."


class TestProvenance:
    def test_it_is_the_end_of_every_card_and_shown_before(self, push, hub):
        push.provenance = STORY
        section = f"\n\n<!-- provenance -->\n{STORY}\n<!-- /provenance -->\n"
        assert section.strip() in push.preview(**MODEL)
        push(**MODEL)
        assert card(hub).endswith(section) and "## Evaluation" in card(hub)
        push.call_id = "call_2"
        push(**DATA, card="---\nlicense: mit\n---\n# Mine\n\nBody.\n")
        assert card(hub, "tester/films", "dataset").endswith("# Mine\n\nBody." + section)

    def test_without_one_nothing_changes(self, push, hub, workspace):
        push(**MODEL)
        assert "provenance" not in card(hub)
        push.call_id, push.provenance = "call_2", ""
        push(**MODEL)
        assert "provenance" not in card(hub)

    def test_another_push_of_the_same_card_replaces_it(self, push, hub, workspace):
        push.provenance = STORY
        push(**MODEL, card="# Mine\n")
        for number in (2, 3):
            lay(workspace, {"out/README.md": card(hub).encode()})
            push.call_id, push.provenance = f"call_{number}", f"{STORY} And {number}."
            push(**MODEL)
        assert card(hub).count("How this came about") == card(hub).count("## Evaluation") == 1
        assert "And 3." in card(hub) and "And 2." not in card(hub)
        assert card(hub).index("# Mine") < card(hub).index("## Evaluation") < card(hub).index("And 3.")
        assert "README.md stays as it is." in push.preview(**MODEL)

    def test_it_cannot_end_itself(self, push, hub):
        push.provenance = "a <!-- /provenance --> b"
        push(**MODEL)
        assert card(hub).count("<!-- /provenance -->") == 1 and card(hub).endswith("b\n<!-- /provenance -->\n")

    def test_a_key_in_it_is_refused_and_a_call_is_still_carried_out_once(self, push, hub):
        push.provenance = "hf_" + "aB3" * 12
        with pytest.raises(ValueError, match=r"Keys or passwords in README\.md"):
            push(**MODEL)
        push.provenance = STORY
        done = push(**MODEL)
        push.provenance = "another"
        assert push(**MODEL) == push.reconcile("call_1", **MODEL) == done and STORY in card(hub)


class TestVisibility:
    def test_a_public_repository_is_not_updated_as_if_it_were_private(self, push, hub):
        hub.seed("tester/sentiment", "model", {"a.txt": b"x"})
        before = len(commits(hub))
        assert "WILL BE REFUSED: It is public, but private=True" in push.preview(**MODEL)
        with pytest.raises(ValueError, match="exists and is public, but private=True"):
            push(**MODEL)
        assert len(commits(hub)) == before
        assert push(**MODEL, private=False)["private"] is False

    def test_a_public_one_on_request(self, push, hub):
        assert push(**MODEL, private=False)["private"] is False
        assert hub.store.find("model", "tester/sentiment").visibility == "public"

    def test_private_stays_private(self, push, hub):
        push(**MODEL)
        push.call_id = "call_2"
        assert push(**MODEL, private=False)["private"] is True


class TestRights:
    def test_a_token_that_may_only_read(self, push, hub, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_reader")
        with pytest.raises(PermissionError, match=r"read-only.*HF_TOKEN"):
            push(**MODEL)

    def test_a_namespace_of_others(self, push, hub):
        with pytest.raises(PermissionError, match="403"):
            push(**{**MODEL, "repo_id": "acme/sentiment"})

    def test_no_token(self, push, hub, monkeypatch):
        monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(PermissionError, match="Set an HF_TOKEN"):
            push(**MODEL)


def test_what_is_pushed_is_what_the_workspace_of_the_call_holds(push, hub, workspace, tmp_path):
    workspace.copy_out("out", tmp_path / "frozen" / "out")
    lay(workspace, {"out/sub/config.json": b"changed since"})
    push.workspace = Workspace(tmp_path / "frozen")
    push(**MODEL)
    assert hub.read("tester/sentiment", "model", "sub/config.json") == b"{}"


def test_a_folder_that_is_not_there_or_is_a_file(push):
    with pytest.raises(ValueError, match="nowhere"):
        push(**{**MODEL, "folder": "nowhere"})
    with pytest.raises(ValueError, match="is to be a folder"):
        push(**{**MODEL, "folder": "out/model.safetensors"})


@pytest.mark.long
def test_it_survives_saving(push):
    assert_survives_saving(HubPushTool, "huggingface_hub")
    assert json.dumps(HubPushTool.output_schema)
