"""The paper tools together, in agents: found, merged, read, followed, and what belongs to it."""

import pytest
from ml_intern.tools import (
    ArxivSearchTool,
    PaperGraphTool,
    PaperReadTool,
    PaperResourcesTool,
    SemanticScholarSearchTool,
)
from scholar_service import running_scholar, scholar  # noqa: F401 - fixtures
from smolagents import CodeAgent, ToolCallingAgent
from smolagents.models import ChatMessage, ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole

from ml_intern import InternAgent
from ml_intern.testing import LocalArxiv, ScriptedModel
from ml_intern.testing.papers import Part, latexml, pdf

RESNET = "1512.03385"
ERRAND = f"""
found = arxiv_search(query="residual", limit=5)["papers"] + semantic_scholar_search(query="residual", limit=5)["papers"]
merged = {{}}
for paper in found:
    merged.setdefault(paper["arxiv_id"] or paper["doi"] or paper["title"], {{}}).update({{k: v for k, v in paper.items() if v}})
best = merged["{RESNET}"]
contents = paper_read("{RESNET}")["contents"]
rate = paper_read("{RESNET}", part="Training")["text"]
cited = paper_graph(relation="references", paper="{RESNET}", limit=2)["papers"]
models = paper_resources(paper="{RESNET}", kinds=["models"])["models"]
final_answer([best["title"], best["citations"] is not None, list(contents), "0.1" in rate, len(cited), models[0]["id"]])
"""
EXPECTED = ["Deep Residual Learning for Image Recognition", True, ["Abstract", "1 Training"], True, 2, "acme/resnet"]


@pytest.fixture
def services(scholar, hub, monkeypatch):  # noqa: F811
    card = f"As in https://arxiv.org/abs/{RESNET} .".encode()
    hub.seed("acme/resnet", "model", {"README.md": card})
    with LocalArxiv() as arxiv:
        page = latexml("Deep Residual Learning", ["K. He"], "Deep.", [Part("Training", ["The learning rate is 0.1."])])
        arxiv.publish(RESNET, html=page)
        for name, value in arxiv.environment().items():
            monkeypatch.setenv(name, value)
        yield arxiv


def tools():
    return [ArxivSearchTool(), SemanticScholarSearchTool(), PaperReadTool(), PaperGraphTool(), PaperResourcesTool()]


def test_in_a_plain_code_agent(services):
    with ScriptedModel([f"<code>{ERRAND}</code>"]) as model:
        assert CodeAgent(tools=tools(), model=model, verbosity_level=0).run("find it") == EXPECTED


def test_in_a_plain_tool_calling_agent(services):
    def call(name: str, arguments: dict) -> ChatMessage:
        function = ChatMessageToolCallFunction(arguments, name)
        return ChatMessage(MessageRole.ASSISTANT, "", tool_calls=[ChatMessageToolCall(function, name, "function")])

    script = [call("paper_read", {"paper": RESNET, "part": "1"}), call("final_answer", {"answer": "0.1"})]
    with ScriptedModel(script) as model:
        assert ToolCallingAgent(tools=tools(), model=model, verbosity_level=0).run("what rate?") == "0.1"
    assert "The learning rate is 0.1." in str(model.requests[1][-1].content)


def test_in_the_intern_also_with_a_file_that_its_code_wrote(services, tmp_path):
    """Calls come back from the jail to the host, whose tools read what the code wrote into the workspace."""
    body = pdf([["Mine", "1 Introduction", "Hello."]]).decode("latin-1")
    write = f"open('mine.pdf', 'wb').write({body!r}.encode('latin-1'))"
    more = ERRAND.replace("final_answer([", "mine = paper_read('mine.pdf', part='1')['text']\nfinal_answer([mine, ")
    with ScriptedModel([f"<code>{write}\n{more}</code>"]) as model:
        agent = InternAgent(tools=tools(), model=model, verbosity_level=0)
        answer = agent.run("find it")
        agent.cleanup()
        assert answer == ["1 Introduction\nHello.\n", *EXPECTED]
