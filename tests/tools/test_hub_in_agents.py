"""Files, branches, documentation and example code together, in agents: as one looks how a thing is done before doing it."""

import json

import pytest
from ml_intern.tools import GithubCodeTool, HubDocsTool, HubListFilesTool, HubReadFileTool, HubRepoTool
from smolagents import CodeAgent, ToolCallingAgent
from smolagents.models import ChatMessage, ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole

from ml_intern import InternAgent
from ml_intern.approval import ApprovalPolicy
from ml_intern.events import ApprovalAnswer
from ml_intern.intern import _own_namespaces
from ml_intern.testing import LocalGithub, ScriptedModel

ERRAND = """
page = hub_docs(query="packing several examples", library="trl")["results"][0]["page"]
says = hub_docs(page=page, section="Packing")["text"]
example = github_code(operation="find", repo="acme/trainers", query="sft")["results"][0]
code = github_code(operation="read", repo=example["repo"], path=example["path"])["text"]
files = hub_list_files(repo_id="acme/m", pattern="*.json")["entries"]
config = hub_read_file(repo_id="acme/m", path=files[0]["path"])["text"]
branches = hub_repo(operation="refs", repo_id="acme/m")["branches"]
"""
END = 'final_answer([page, "packing=True" in says, code, config, list(branches)])'
EXPECTED = ["trl/sft_trainer", True, "SFTTrainer(packing=True)", '{"layers": 2}', ["main"]]


def test_whose_namespace_it_is_says_the_hub_that_the_tools_ask(hub):
    assert _own_namespaces() == {"tester"}


@pytest.fixture
def services(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub._hub.docs.clear()
    page = "# SFT Trainer[[sft]]\n\nTrains.\n\n## Packing[[packing]]\n\nSeveral examples in one: `packing=True`."
    hub.add_docs("trl", {"index": "# TRL\n\nTrains.", "sft_trainer": page})
    hub.seed("acme/m", "model", {"config.json": json.dumps({"layers": 2}).encode()})
    hub.seed("tester/m", "model", {"README.md": b"# M\n"}, private=True)
    with LocalGithub() as github:
        github.add(
            "acme/trainers", {"examples/sft.py": b"SFTTrainer(packing=True)\n", "trainers/sft.py": b"class X: ...\n"}
        )
        for name, value in github.environment().items():
            monkeypatch.setenv(name, value)
        yield hub


def tools():
    return [HubListFilesTool(), HubReadFileTool(), HubRepoTool(), HubDocsTool(), GithubCodeTool()]


def test_in_a_plain_code_agent(services):
    with ScriptedModel([f"<code>{ERRAND}{END}</code>"]) as model:
        assert CodeAgent(tools=tools(), model=model, verbosity_level=0).run("look") == EXPECTED


def test_in_a_plain_tool_calling_agent(services):
    def call(name: str, arguments: dict) -> ChatMessage:
        function = ChatMessageToolCallFunction(arguments, name)
        return ChatMessage(MessageRole.ASSISTANT, "", tool_calls=[ChatMessageToolCall(function, name, "function")])

    script = [
        call("hub_read_file", {"repo_id": "acme/m", "path": "config.json"}),
        call("final_answer", {"answer": "2"}),
    ]
    with ScriptedModel(script) as model:
        assert ToolCallingAgent(tools=tools(), model=model, verbosity_level=0).run("how many layers?") == "2"
    assert "layers" in str(model.requests[1][-1].content)


def test_in_the_intern_where_reading_is_free_and_changing_asks(services):
    """Calls come back from the jail; the questions show in full what will happen, and a no is a no."""
    asked = []

    def answer(request):
        asked.append(request)
        return ApprovalAnswer(
            "approve" if request.arguments["operation"] == "create_branch" else "reject", "no", by="me"
        )

    act = """
made = hub_repo(operation="create_branch", repo_id="tester/m", name="dev")["after"]
try:
    hub_repo(operation="update_settings", repo_id="tester/m", visibility="public")
    refused = False
except PermissionError as error:
    refused = True
"""
    end = END.replace("])", ", list(made), refused])")
    with ScriptedModel([f"<code>{ERRAND}{act}{end}</code>"]) as model:
        policy = ApprovalPolicy.of(own=["tester"])
        agent = InternAgent(tools=tools(), model=model, verbosity_level=0, policy=policy, on_approval=answer)
        result = agent.run("look, and branch")
        agent.cleanup()
    assert result == [*EXPECTED, ["dev"], True]
    branch, public = asked
    assert "The branch dev at main, which is" in branch.preview
    assert (branch.destination.name, branch.destination.visibility) == ("tester/m", "private")
    assert "IT BECOMES PUBLIC: EVERYONE CAN READ ALL FILES AND THEIR HISTORY" in public.preview
    assert public.destination.visibility == "public"
    assert services.store.find("model", "tester/m").visibility == "private"
