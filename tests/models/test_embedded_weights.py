"""Names of weights: where they lie, which file of a repository they are, how they are downloaded."""

from __future__ import annotations

import hashlib
import threading

import pytest
from gguf_files import FACTS, header, write_header

from ml_intern.errors import ModelFailed
from ml_intern.models.embedded import find_on_disk
from ml_intern.models.embedded.download import download
from ml_intern.models.embedded.gguf import parts
from ml_intern.models.embedded.weights import Weights, choose, hub_cache, listed, quantisation_of
from ml_intern.testing.hub import LocalHub

REPOSITORY = ["README.md", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-F16.gguf", "m-imatrix.gguf", "m-IQ4_XS.gguf"]
SPLIT = ["big-Q4_K_M/big-Q4_K_M-00001-of-00002.gguf", "big-Q4_K_M/big-Q4_K_M-00002-of-00002.gguf", "big-q8_0.gguf"]


@pytest.mark.parametrize(
    ("names", "wanted", "chosen"),
    [
        (REPOSITORY, "", ["m-Q4_K_M.gguf"]),
        (REPOSITORY, "q8_0", ["m-Q8_0.gguf"]),
        (REPOSITORY, "IQ4_XS", ["m-IQ4_XS.gguf"]),
        (SPLIT, "Q4_K_M", SPLIT[:2]),
        (SPLIT, "Q8_0", ["big-q8_0.gguf"]),
        (["model.gguf"], "", ["model.gguf"]),
        (["a.Q3_K_L.gguf", "UD/a-UD-Q4_K_XL.gguf"], "UD-Q4_K_XL", ["UD/a-UD-Q4_K_XL.gguf"]),
    ],
)
def test_which_file_of_a_repository(names, wanted, chosen):
    assert choose(names, wanted) == chosen


@pytest.mark.parametrize(
    ("names", "wanted", "there"), [(REPOSITORY, "Q2_K", "IQ4_XS, Q4_K_M, Q8_0"), (["a.safetensors"], "", "")]
)
def test_no_such_quantisation(names, wanted, there):
    with pytest.raises(LookupError) as error:
        choose(names, wanted)
    assert str(error.value) == there


def test_quantisation_in_a_name():
    names = ("SmolLM2-135M-Instruct.Q4_1.gguf", "Qwen2.5-Q2-chat-f16.gguf", "m.gguf", "gpt-oss-MXFP4_MOE.gguf")
    assert [quantisation_of(name) for name in names] == ["Q4_1", "F16", "", "MXFP4_MOE"]


def test_names(tmp_path):
    path = write_header(tmp_path / "models" / "own.gguf")
    assert Weights.of(f"embedded/{path}").file == path
    assert Weights.of("embedded/own.gguf", home=tmp_path).on_disk() == path
    assert Weights.of("embedded/other.gguf", home=tmp_path).on_disk() is None
    found = Weights.of("embedded/Qwen/Qwen2.5-GGUF:Q4_K_M")
    assert (found.repository, found.quantisation) == ("Qwen/Qwen2.5-GGUF", "Q4_K_M")
    for wrong in ("embedded/", "embedded/qwen", "embedded/a/b/c", "embedded/a b/c"):
        with pytest.raises(ModelFailed, match="names no weights"):
            Weights.of(wrong)


def in_cache(cache, repository, name, size=0, said=None):
    folder = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / ("0" * 40)
    return write_header(folder / name, said, size)


@pytest.fixture
def with_xllamacpp():
    pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: the extra [embedded]")


@pytest.mark.usefixtures("with_xllamacpp")
def test_the_largest_weights_that_fit(tmp_path):
    def found(free):
        return find_on_disk(free, tmp_path / "cache", tmp_path)

    assert found(10**12) is None
    write_header(tmp_path / "models" / "small.gguf", size=10**8)
    in_cache(tmp_path / "cache", "me/big", "big.Q4_K_M.gguf", 10**10)
    in_cache(tmp_path / "cache", "me/big", "mmproj-F16.gguf", 10**11)
    in_cache(tmp_path / "cache", "me/embeds", "e.Q8_0.gguf", 10**11, {"general.architecture": "bert"})
    in_cache(tmp_path / "cache", "me/half", "h.Q8_0-00001-of-00002.gguf", 10**11)
    assert found(10**12) == "embedded/me/big:Q4_K_M"
    assert found(2 * 10**9) == "embedded/small.gguf"
    assert found(10**8) is None
    assert ("embedded/me/big:Q4_K_M") in [name for _, name in listed(tmp_path / "cache", tmp_path)]
    for name in ("embedded/me/big:Q4_K_M", "embedded/me/big:q4_k_m", "embedded/me/big"):
        assert Weights.of(name).on_disk(tmp_path / "cache").name == "big.Q4_K_M.gguf"
    assert Weights.of("embedded/me/half").on_disk(tmp_path / "cache") is None


def test_the_cache_is_the_clients(tmp_path):
    from huggingface_hub import constants

    assert str(hub_cache()) == constants.HF_HUB_CACHE
    assert hub_cache({"HF_HOME": "/h"}).as_posix() == "/h/hub"
    assert hub_cache({"HF_HUB_CACHE": "/c", "HF_HOME": "/h"}).as_posix() == "/c"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with LocalHub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


BIG = header(FACTS) + bytes(range(256)) * 160_000


def test_downloaded_once_with_progress(hub, tmp_path):
    hub.seed("me/big-GGUF", "model", {"big-Q4_K_M.gguf": BIG, "big-Q8_0.gguf": b"other"})
    weights, told = Weights.of("embedded/me/big-GGUF:q4_k_m", tmp_path), []
    assert weights.on_disk(tmp_path / "cache") is None
    file = download(weights, told.append, every=0)
    assert file.read_bytes() == BIG
    assert file == weights.on_disk(tmp_path / "cache") == tmp_path / "models/me/big-GGUF/big-Q4_K_M.gguf"
    assert [
        line for line in told if line.startswith("Downloading embedded/me/big-GGUF:q4_k_m: 0.04 of 0.04 GB (100 %)")
    ]
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert Weights.of("embedded/me/big-GGUF/big-Q4_K_M.gguf", tmp_path).on_disk() == file


def test_all_parts_of_a_split_model(hub, tmp_path):
    hub.seed("me/big", "model", {name: BIG[:100] + name.encode() for name in SPLIT})
    weights = Weights.of("embedded/me/big:Q4_K_M", tmp_path)
    first = download(weights, print)
    assert [part.read_bytes()[100:].decode() for part in parts(first)] == SPLIT[:2]


def test_a_download_that_was_stopped_goes_on_where_it_was(hub, tmp_path):
    hub.seed("me/m", "model", {"m.gguf": BIG})
    weights, moved, told = Weights.of("embedded/me/m", tmp_path), [], []

    def unwanted():
        moved.append(1)
        return len(moved) > 2

    with pytest.raises(ModelFailed, match="was cancelled") as stopped:
        download(weights, print, unwanted)
    assert stopped.value.kind == "cancelled"
    (part,) = weights.folder.iterdir()
    begun = part.stat().st_size
    assert 0 < begun < len(BIG)
    assert weights.on_disk(tmp_path / "cache") is None
    assert download(weights, told.append, every=0).read_bytes() == BIG
    assert min(int(line.split("(")[1].split()[0]) for line in told) > 100 * begun // len(BIG)


@pytest.mark.parametrize("damage", ["a byte", "too long"])
def test_a_file_that_arrives_damaged_is_not_taken(hub, tmp_path, damage):
    hub.seed("me/m", "model", {"m.gguf": BIG})
    weights = Weights.of("embedded/me/m", tmp_path)
    weights.folder.mkdir(parents=True)
    part = weights.folder / f"m.gguf.{hashlib.sha256(BIG).hexdigest()[:16]}.part"
    part.write_bytes(b"x" * 100 if damage == "a byte" else BIG + b"x")
    if damage == "a byte":
        with pytest.raises(ModelFailed, match=r"m\.gguf arrived damaged \(its SHA-256 is not the Hub's\)"):
            download(weights, print)
        assert list(weights.folder.iterdir()) == []
    assert download(weights, print).read_bytes() == BIG


def test_two_sessions_download_once(hub, tmp_path):
    hub.seed("me/m", "model", {"m.gguf": BIG})
    weights, got = Weights.of("embedded/me/m", tmp_path), []
    threads = [threading.Thread(target=lambda: got.append(download(weights, print))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 3
    assert got[0].read_bytes() == BIG
    assert [path.name for path in weights.folder.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize(
    ("name", "what", "kind"),
    [
        ("embedded/me/nowhere", "The Hub does not give me/nowhere (401", "missing"),
        ("embedded/me/m:Q2_K", "me/m has no Q2_K (it has Q4_0)", "missing"),
        ("embedded/me/none", "me/none has no GGUF file", "missing"),
    ],
)
def test_what_the_hub_does_not_have(hub, tmp_path, name, what, kind):
    hub.seed("me/m", "model", {"m-Q4_0.gguf": b"x"})
    hub.seed("me/none", "model", {"model.safetensors": b"x"})
    with pytest.raises(ModelFailed) as error:
        download(Weights.of(name, tmp_path), print)
    assert what in str(error.value)
    assert error.value.kind == kind
    assert error.value.remedy


def test_no_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelFailed, match="could not be downloaded") as error:
        download(Weights.of("embedded/me/m", tmp_path), print)
    assert error.value.kind == "unreachable"
