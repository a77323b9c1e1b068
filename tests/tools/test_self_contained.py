"""Every file of `tools/` is one tool that leans on nothing here, and describes itself in full."""

import ast
import importlib
import inspect
from pathlib import Path

import ml_intern.tools
import pytest
from jsonschema import Draft202012Validator
from smolagents import Tool
from smolagents.tool_validation import validate_tool_attributes

FOLDER = Path(ml_intern.tools.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
HUB = [name for name in NAMES if name.startswith("hub_")]


def source(name):
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def the_class(name):
    module = importlib.import_module(f"ml_intern.tools.{name}")
    classes = [
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__
    ]
    assert len(classes) == 1, f"{name}.py holds {len(classes)} classes"
    return classes[0]


def attributes(name):
    (body,) = [node.body for node in ast.parse(source(name)).body if isinstance(node, ast.ClassDef)]
    for node in body:
        if isinstance(node, ast.Assign):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign):
            yield node.target.id, node.value


def test_there_are_tools():
    assert {"hub_download", "hub_inspect_dataset", "hub_push", "hub_search_datasets"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestFile:
    def test_it_holds_one_tool_of_its_own_name(self, name):
        tool_class = the_class(name)
        assert issubclass(tool_class, Tool)
        assert tool_class.name == name
        assert tool_class.__name__ == "".join(part.capitalize() for part in name.split("_")) + "Tool"

    def test_smolagents_would_save_it(self, name):
        """The names that its source uses, by smolagents' own reader; the long tests save, load and run it as well."""
        validate_tool_attributes(the_class(name))

    def test_it_knows_nothing_of_the_project(self, name):
        assert "ml_intern" not in source(name)
        for node in ast.walk(ast.parse(source(name))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"line {node.lineno} imports a neighbour"

    def test_only_types_and_smolagents_are_imported_at_the_top(self, name):
        """smolagents saves the class alone: whatever else stands above it is lost."""
        for node in ast.parse(source(name)).body:
            assert isinstance(node, ast.ClassDef | ast.ImportFrom | ast.Expr), f"line {node.lineno} would be lost"
            if isinstance(node, ast.ImportFrom):
                assert node.module in ("typing", "smolagents", "__future__")

    def test_its_attributes_are_literal(self, name):
        for attribute, value in attributes(name):
            assert ast.literal_eval(value) == getattr(the_class(name), attribute), attribute

    def test_it_says_what_it_does_to_the_world(self, name):
        tool_class = the_class(name)
        effects = tool_class.effects
        kinds = set(effects.values()) if isinstance(effects, dict) else {effects}
        assert kinds <= {"read", "write", "spend", "execute"}
        if kinds & {"write", "spend"}:
            assert callable(tool_class.reconcile)
            assert callable(tool_class.preview)
        if "spend" in kinds:
            assert callable(tool_class.estimate_cost)
        assert set(getattr(tool_class, "sends", ())) <= set(tool_class.inputs)

    def test_its_arguments_are_described_and_optional_ones_have_defaults(self, name):
        tool_class = the_class(name)
        parameters = inspect.signature(tool_class.forward).parameters
        for key, about in tool_class.inputs.items():
            assert len(about["description"]) > 15, key
            assert not about.get("nullable") or "(default" in about["description"], key
            assert about.get("nullable", False) == (parameters[key].default is not inspect.Parameter.empty), key
        for parameter in list(inspect.signature(tool_class.__init__).parameters.values())[1:]:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                assert parameter.default is None, f"{parameter.name} must default to None"

    def test_its_answer_is_described_by_a_valid_schema(self, name):
        schema = the_class(name).output_schema
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert schema["properties"]

    def test_a_model_can_read_about_it(self, name):
        prompt = the_class(name)().to_code_prompt()
        assert prompt.startswith(f"def {name}(")
        assert len(prompt) < 9000


def test_the_facade_exports_every_tool_and_nothing_else():
    assert sorted(ml_intern.tools.__all__) == sorted(the_class(name).__name__ for name in NAMES)
    for name in NAMES:
        assert getattr(ml_intern.tools, the_class(name).__name__) is the_class(name)
    with pytest.raises(AttributeError, match="HubPushTool"):
        ml_intern.tools.HubPullTool  # noqa: B018 - the access is what is tested
