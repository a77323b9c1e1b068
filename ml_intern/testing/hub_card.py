"""What the Hub derives from a repository's files: card metadata, tags, library, task, size."""

import fnmatch
import json
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from ml_intern.testing.hub_store import Commit, Repo, Store

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)(?:^|\n)---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_ARXIV = re.compile(r"(?:arxiv\.org/(?:abs|pdf|html)|(?:huggingface\.co|hf\.co)/papers)/(\d{4}\.\d{4,5})")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where PyYAML was built with libyaml
_MUST_BE_TEXT = ("pipeline_tag", "library_name", "sdk", "pretty_name")
# Card fields that become tags: with their name in front, or (`None`) as they are.
_MODEL_TAGS = {"license": "license", "language": None, "datasets": "dataset", "base_model": "base_model", "tags": None}
_DATASET_TAGS = {
    "annotations_creators": "annotations_creators",
    "language_creators": "language_creators",
    "language": "language",
    "license": "license",
    "multilinguality": "multilinguality",
    "size_categories": "size_categories",
    "source_datasets": "source_datasets",
    "task_categories": "task_categories",
    "task_ids": "task_ids",
    "tags": None,
}
_SPACE_TAGS = {"sdk": None, "license": "license", "tags": None}
_FORMATS = {"*.safetensors": "safetensors", "*.gguf": "gguf", "*.onnx": "onnx", "pytorch_model*.bin": "pytorch"}
_DATA_FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
_MEDIA = {
    "image": {".jpg", ".jpeg", ".png", ".webp"},
    "audio": {".wav", ".mp3", ".flac", ".ogg"},
    "video": {".mp4", ".avi", ".mkv"},
}
_TASKS = {
    "ForCausalLM": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForImageClassification": "image-classification",
    "ForConditionalGeneration": "text2text-generation",
}
_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10**18: "n>1M"}


class CardError(ValueError):
    """The YAML of a card is not what the Hub accepts."""


@dataclass(frozen=True)
class Profile:
    """What is shown of a repository besides its files."""

    card: dict[str, Any] | None = None
    text: str = ""
    tags: list[str] = field(default_factory=list)
    pipeline_tag: str | None = None
    library: str | None = None
    config: dict[str, Any] | None = None
    safetensors: dict[str, Any] | None = None


def parse_card(content: str) -> tuple[dict[str, Any] | None, str]:
    """
    Split a README into its metadata and its text.

    Returns:
        `tuple[dict | None, str]`: `None` when there is no metadata.

    Raises:
        CardError: If the metadata is not valid YAML, not a mapping, or has a field of the wrong type.
    """
    found = _FRONT_MATTER.match(content)
    if not found:
        return None, content
    try:
        card = yaml.load(found[1], Loader=_LOADER)
    except yaml.YAMLError as error:
        raise CardError(f"YAML metadata is invalid: {error}") from error
    if card is None:
        return None, content[found.end() :]
    if not isinstance(card, dict):
        raise CardError("YAML metadata must be a mapping of names to values")
    for name in _MUST_BE_TEXT:
        if name in card and not isinstance(card[name], str):
            raise CardError(f'"{name}" must be a string')
    if "language" in card:
        # This YAML reads Norwegian as false, the Hub's does not.
        card["language"] = ["no" if item is False else item for item in _listed(card["language"])]
    for name in ("license", "language", "tags", "datasets", "task_categories"):
        if not all(isinstance(item, str) for item in _listed(card.get(name))):
            raise CardError(f'"{name}" must be a string or a list of strings')
    try:
        # Dates and the like come back as they would through JSON, which is how the API sends them.
        plain = json.loads(json.dumps(card, default=str), parse_constant=lambda _: None)
    except TypeError as error:
        raise CardError(f"YAML metadata cannot be told as JSON: {error}") from error
    return plain, content[found.end() :]


def profile(store: Store, repo: Repo, commit: Commit) -> Profile:
    """What the Hub knows about `repo` at `commit`, from the card and the names and heads of files."""
    readme = (store.read(commit, "README.md") or b"").decode(errors="replace")
    try:
        card, text = parse_card(readme)
    except CardError:
        card, text = None, readme
    fields = card or {}
    endings = {"." + path.rpartition(".")[2] for path in commit.files}
    names = {"model": _MODEL_TAGS, "dataset": _DATASET_TAGS, "space": _SPACE_TAGS}[repo.type]
    tags = [
        f"{prefix}:{item}" if prefix else item for name, prefix in names.items() for item in _listed(fields.get(name))
    ]
    config, library, task = None, fields.get("library_name"), fields.get("pipeline_tag")
    if repo.type == "model":
        config = _json(store.read(commit, "config.json"))
        kind = (config or {}).get("model_type")
        library = library or ("transformers" if kind else "peft" if "adapter_config.json" in commit.files else None)
        architecture = next(iter((config or {}).get("architectures") or ()), "")
        task = task or next((task for end, task in _TASKS.items() if str(architecture).endswith(end)), None)
        formats = [tag for pattern, tag in _FORMATS.items() if fnmatch.filter(commit.files, pattern)]
        relation = fields.get(
            "base_model_relation", "adapter" if "adapter_config.json" in commit.files else "finetune"
        )
        tags += [f"base_model:{relation}:{base}" for base in _listed(fields.get("base_model"))]
        tags = [item for item in (library, *formats, kind, task) if item] + tags
    if repo.type == "dataset":
        tags += sorted({f"format:{tag}" for ending, tag in _DATA_FORMATS.items() if ending in endings})
        tags += sorted(f"modality:{kind}" for kind in _modalities(fields, endings))
        size = next((size for limit, size in _SIZES.items() if _rows(fields) < limit), None)
        tags += [f"size_categories:{size}"] if _rows(fields) and "size_categories" not in fields else []
    if repo.type == "space" and repo.sdk:
        tags.append(repo.sdk)
    tags += [f"arxiv:{paper}" for paper in _ARXIV.findall(readme)] + ["region:us"]
    weights = _safetensors(store, commit) if repo.type == "model" else None
    return Profile(card, text, list(dict.fromkeys(map(str, tags))), task, library, config, weights)


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _json(data: bytes | None) -> dict[str, Any] | None:
    try:
        value = json.loads(data or b"null")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _rows(card: dict[str, Any]) -> int:
    """Number of examples, as the card's `dataset_info` declares it; 0 where it does not."""
    configs = [config for config in _listed(card.get("dataset_info")) if isinstance(config, dict)]
    splits = [split for config in configs for split in config.get("splits") or []]
    return sum(split.get("num_examples") or 0 for split in splits if isinstance(split, dict))


def _modalities(card: dict[str, Any], endings: set[str]) -> set[str]:
    """What kinds of data there are: by the endings of files, and by the types that the card declares."""
    found = {kind for kind, known in _MEDIA.items() if endings & known}
    configs = [config for config in _listed(card.get("dataset_info")) if isinstance(config, dict)]
    for feature in [one for config in configs for one in config.get("features") or [] if isinstance(one, dict)]:
        dtype = str(feature.get("dtype"))
        kinds = {"string": "text", "image": "image", "audio": "audio", "video": "video"}
        found |= {kinds[dtype]} if dtype in kinds else set()
        found |= {"tabular"} if dtype.startswith(("int", "float", "uint")) else set()
    return found


def eval_results(store: Store, commit: Commit) -> list[dict[str, Any]] | None:
    """The entries of `.eval_results/*.yaml`, as the API shows them: what is wrong with a file stands in its place."""
    found: list[dict[str, Any]] = []
    for path in sorted(path for path in commit.files if fnmatch.fnmatch(path, ".eval_results/*.yaml")):
        try:
            entries = yaml.load(store.read(commit, path) or b"", Loader=_LOADER)
            plain = json.loads(json.dumps(entries, default=str))
            for entry in plain:
                if not {"id", "task_id"} <= entry["dataset"].keys() or "value" not in entry:
                    raise ValueError("dataset.id, dataset.task_id and value are required")
                found.append({"filename": path, "data": entry})
        except (yaml.YAMLError, ValueError, TypeError, KeyError) as error:
            found.append({"filename": path, "error": str(error)})
    return found or None


def _safetensors(store: Store, commit: Commit) -> dict[str, Any] | None:
    """Number of parameters per type, from the head of each weight file."""
    counts: dict[str, int] = {}
    for path, file in commit.files.items():
        if path.endswith(".safetensors") and "/" not in path:
            with store.blobs.path(file.sha256).open("rb") as weights:
                length = int.from_bytes(weights.read(8), "little")
                head = _json(weights.read(length)) if length <= file.size else None
            for name, tensor in (head or {}).items():
                if name != "__metadata__":
                    number = 1
                    for side in tensor["shape"]:
                        number *= side
                    counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + number
    return {"parameters": counts, "total": sum(counts.values())} if counts else None
