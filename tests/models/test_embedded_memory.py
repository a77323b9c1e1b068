"""Which window weights get on which machine, and where the figures come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf_files import FACTS, header, write_header
from hypothesis import given
from hypothesis import strategies as st

from ml_intern.errors import ModelFailed
from ml_intern.models.embedded.gguf import Facts, facts
from ml_intern.models.embedded.memory import BASE, SMALLEST, USUAL, free_memory, plan

GB = 10**9
QWEN = Facts((Path("q.gguf"),), 20 * GB, 131_072, 262_144, 200_000, "Qwen2.5-Coder-32B", True)


def test_what_a_header_says(tmp_path):
    found = facts(write_header(tmp_path / "m.gguf", size=4000))
    assert (found.size, found.trained, found.name, found.chats) == (4000, 8192, "m", True)
    assert found.kv == 2 * 30 * 3 * (64 + 64)  # 16 bits, layers, heads, key and value
    assert found.width == 3 + 8 * 576 + 2 * 1536


def test_a_header_with_figures_for_each_layer_and_heads_of_their_own_size(tmp_path):
    said = {
        **FACTS,
        "llama.attention.head_count_kv": [1, 3, 2],
        "llama.attention.key_length": 100,
        "llama.attention.value_length": 28,
        "x.nested": [[1, 2], [3]],
    }
    assert facts(write_header(tmp_path / "m.gguf", said)).kv == 2 * 30 * 3 * 128


def test_a_split_model_is_all_of_its_parts(tmp_path):
    for number in (1, 2, 3):
        write_header(tmp_path / f"m-Q4_K_M-0000{number}-of-00003.gguf", size=1000)
    found = facts(tmp_path / "m-Q4_K_M-00001-of-00003.gguf")
    assert (len(found.files), found.size, found.name) == (3, 3000, "m-Q4_K_M")
    (tmp_path / "m-Q4_K_M-00002-of-00003.gguf").unlink()
    with pytest.raises(ModelFailed, match=r"There is no file .*00002-of-00003"):
        facts(tmp_path / "m-Q4_K_M-00001-of-00003.gguf")


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 255))
def test_no_file_is_read_without_end_or_with_a_traceback(tmp_path_factory, noise, at, byte):
    good = bytearray(header(FACTS))
    for text in (noise, b"GGUF" + noise, bytes(good[:at]), bytes(good[:at] + bytes([byte]) + good[at + 1 :])):
        file = tmp_path_factory.getbasetemp() / "noise.gguf"
        file.write_bytes(text)
        try:
            facts(file)
        except ModelFailed as error:
            assert "holds no model" in str(error) or "cannot be read" in str(error)


def test_the_usual_window_where_there_is_room():
    found = plan(QWEN, 64 * GB)
    assert (found.window, found.kv) == (USUAL, USUAL * 262_144)
    assert 0 < found.cache <= (2 << 30)
    assert plan(QWEN, 640 * GB, window=131_072).window == 131_072
    assert plan(QWEN, 640 * GB, window=500_000).window == 131_072  # more it was not trained with


def test_a_smaller_window_before_a_refusal():
    assert plan(QWEN, 29 * GB).window == USUAL // 2
    assert plan(QWEN, 23_300_000_000).window == SMALLEST
    with pytest.raises(ModelFailed) as refused:
        plan(QWEN, 10 * GB)
    assert str(refused.value).splitlines() == [
        "Qwen2.5-Coder-32B needs 20.9 GB of memory, and this machine has 9.0 GB to spare (weights 20.0 GB, "
        "a window of 2,048 tokens 0.5 GB, computing 0.4 GB)",
        "Choose smaller weights or a smaller quantisation.",
    ]


def test_a_window_that_was_asked_for_is_not_made_smaller():
    with pytest.raises(ModelFailed, match="or a smaller window"):
        plan(QWEN, 29 * GB, window=USUAL)


@given(st.integers(0, 400 * GB), st.none() | st.integers(1, 300_000))
def test_what_is_planned_fits(free, window):
    try:
        found = plan(QWEN, free, window)
    except ModelFailed:
        assert plan_needs(SMALLEST if window is None else min(window, QWEN.trained)) > free * 0.9 - 1
    else:
        assert found.needed + found.cache <= free * 0.9 + 1
        assert found.window <= QWEN.trained


def plan_needs(window):
    return plan(QWEN, 10**15, window).needed


def machine(folder, available_kb, groups=()):
    """A pretended /proc and /sys/fs/cgroup. `groups`: limit, use and page cache of each group, the outermost first."""
    proc, cgroups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {available_kb} kB\n")
    path = "/" + "/".join(f"g{number}" for number in range(len(groups)))
    (proc / "self/cgroup").write_text(f"0::{path}\n")
    inside = cgroups
    for number, (limit, used, cached) in enumerate(groups):
        inside = inside / f"g{number}"
        inside.mkdir(parents=True)
        (inside / "memory.max").write_text(f"{limit}\n")
        (inside / "memory.current").write_text(f"{used}\n")
        (inside / "memory.stat").write_text(f"anon 5\nactive_file {cached}\ninactive_file 0\n")
    return proc, cgroups


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ((), 8192_000),
        ([("max", 4, 0)], 8192_000),
        ([(9_000_000, 8_000_000, 500_000)], 1_500_000),
        ([(2_000_000, 1_900_000, 0), ("max", 0, 0)], 100_000),  # a group within one that is limited
        ([(90_000_000, 1, 0), (5_000_000, 1_000_000, 0)], 4_000_000),
    ],
)
def test_memory_that_a_container_leaves(tmp_path, groups, expected):
    assert free_memory(*machine(tmp_path, 8000, groups)) == expected


def test_memory_of_this_machine():
    assert BASE < free_memory() < 2**50
