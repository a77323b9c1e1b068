"""A model that reads little is told little of each tool, and can look up the rest; one that reads much is told all."""

from __future__ import annotations

from typing import Any

import pytest
from ml_intern.prompts import load_templates
from ml_intern.tools import ArxivSearchTool, HubDownloadTool, HubInspectDatasetTool, HubPushTool, PaperReadTool

from ml_intern import InternAgent
from ml_intern.testing.models import ScriptedModel

LOOK = "I look it up.\n<code>\nhelp(hub_push)\n</code>"
DONE = "Done.\n<code>\nfinal_answer('done')\n</code>"


class Reads(ScriptedModel):
    """A scripted model that can read so many tokens, and another number after some calls."""

    def __init__(self, script: list[Any], windows: list[int]) -> None:
        super().__init__(script)
        self.windows = windows

    def window(self) -> int | None:
        return self.windows[min(self.calls, len(self.windows) - 1)]


def agent_for(model: Any) -> InternAgent:
    tools = [ArxivSearchTool(), HubDownloadTool(), HubInspectDatasetTool(), HubPushTool(), PaperReadTool()]
    return InternAgent(tools, model, prompt_templates=load_templates(), verbosity_level=0)


def systems(model: Any) -> list[str]:
    return [str(request[0].content) for request in model.requests]


def test_all_is_said_where_there_is_room_and_a_first_sentence_with_the_way_to_the_rest_where_there_is_little() -> None:
    large, small = Reads([DONE], [200_000]), Reads([LOOK, DONE], [12_000])
    for model in (large, small):
        agent = agent_for(model)
        try:
            assert agent.run("Go.") == "done"
        finally:
            agent.cleanup()
    whole, brief = systems(large)[0], systems(small)[0]
    assert HubPushTool.description in whole and "Returns, as a JSON schema" in whole
    assert "Publishes a folder of the workspace" in brief and "allow_pickle: boolean = None" in brief
    assert "Pickle files are refused" not in brief and "Returns, as a JSON schema" not in brief
    assert len(brief) < len(whole) / 2
    assert "help(NAME)" in brief and "help(NAME)" not in whole
    looked_up = str(small.requests[-1][-1].content)
    assert "Pickle files are refused" in looked_up and "publish_anyway" in looked_up and "commit_sha" in looked_up


@pytest.mark.moves_cache_prefix(reason="another model answers; this one only says that it reads less")
def test_a_model_that_takes_over_and_reads_less_is_told_less_and_then_nothing_changes_any_more() -> None:
    model = Reads(["A.\n<code>\n1\n</code>"] * 4 + [DONE], [200_000, 200_000, 12_000])
    agent = agent_for(model)
    try:
        agent.run("Go.")
    finally:
        agent.cleanup()
    told = systems(model)
    assert told[0] == told[1] and told[2] == told[3] == told[4] and len(told[2]) < len(told[0]) / 2
