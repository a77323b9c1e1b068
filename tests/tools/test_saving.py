"""The proof itself can fail: a tool that leans on this project or on a package it does not ask for is caught."""

import pytest
import yaml
from saving import assert_survives_saving
from smolagents import Tool


class GoodTool(Tool):
    name = "good"
    description = "Says what it got."
    inputs = {"text": {"type": "string", "description": "anything"}}
    output_type = "object"
    output_schema = {"type": "object", "properties": {"said": {"type": "string"}}}
    effects = "read"

    def forward(self, text: str) -> dict:
        from packaging.version import Version

        return {"said": text + str(Version("1.0"))}


class BorrowedTool(GoodTool):
    name = "borrowed"
    description = "Needs the project."
    inputs = {"text": {"type": "string", "description": "anything"}}
    output_type = "object"
    effects = "read"

    def forward(self, text: str) -> dict:
        import ml_intern

        return {"said": ml_intern.__name__}


class ImportNameTool(Tool):
    name = "import_name"
    description = "Imports a package whose name on PyPI is another."
    inputs = {"text": {"type": "string", "description": "anything"}}
    output_type = "object"
    effects = "read"

    def forward(self, text: str) -> dict:
        import yaml

        return yaml.safe_load(text)


class HiddenTool(Tool):
    name = "hidden"
    description = "Imports what it does not ask for, in a way that smolagents does not see."
    inputs = {"text": {"type": "string", "description": "anything"}}
    output_type = "object"
    effects = "read"

    def forward(self, text: str) -> dict:
        import importlib

        return {"said": importlib.import_module("pytest").__name__}


class ModuleLevelTool(Tool):
    name = "module_level"
    description = "Uses an import at the top of the file."
    inputs = {"text": {"type": "string", "description": "anything"}}
    output_type = "object"
    effects = "read"

    def forward(self, text: str) -> dict:
        return yaml.safe_load(text)


@pytest.mark.long
def test_a_self_contained_tool_passes_and_runs():
    assert assert_survives_saving(GoodTool, "packaging", call={"text": "x"}) == {"said": "x1.0"}


@pytest.mark.parametrize(
    ("tool_class", "requirements", "error", "message"),
    [
        (GoodTool, (), AssertionError, "packaging"),
        (BorrowedTool, ("ml_intern",), AssertionError, "mentions ml_intern"),
        (ImportNameTool, ("pyyaml",), AssertionError, "yaml.* are import names"),
        (HiddenTool, (), AssertionError, "No module named 'pytest'"),
        (ModuleLevelTool, (), ValueError, "'yaml' is undefined"),
    ],
)
def test_a_tool_that_leans_on_something_is_caught(tool_class, requirements, error, message):
    with pytest.raises(error, match=message):
        assert_survives_saving(tool_class, *requirements, call={"text": "x"})
