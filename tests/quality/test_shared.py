"""What tools share is written by one program, and the tools are as it would write them."""

import pytest
import shared

TOOL = "class A:\n    # Shared: cache\n{}    # End of shared: cache\n\n    def own(self):\n        pass\n"


def test_the_tools_are_as_they_would_be_written(capsys):
    assert shared.main(write=False) == 0, capsys.readouterr().out


def test_a_block_is_written_in_and_put_right():
    known = {"cache": "    def _cached(self):\n        return 1\n"}
    written = shared.rewritten(TOOL.format(""), known)
    assert "    # Shared: cache\n    def _cached(self):\n        return 1\n\n    # End of shared: cache\n" in written
    assert written.endswith("    def own(self):\n        pass\n")
    assert shared.rewritten(written, known) == written
    assert shared.rewritten(written.replace("return 1", "return 2"), known) == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TOOL.format("").replace("End of shared: cache", "the end"), "has no other end"),
        (TOOL.format("").replace("cache", "cash"), "no shared block 'cash'"),
        (
            TOOL.format("") + "    def _cached(self):\n        return 3\n",
            "`def _cached.self.:` belongs to the shared block",
        ),
    ],
)
def test_what_would_stand_twice_or_for_ever_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        shared.rewritten(text, {"cache": "    def _cached(self):\n        return 1\n"})
