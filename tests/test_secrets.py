from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_intern.secrets import Masker, known_secrets

SECRET = "s3cr3t+value/xyz!42"


@pytest.mark.parametrize(
    "form",
    [SECRET, quote(SECRET, safe=""), json.dumps(f'{SECRET}"')[1:-3], base64.b64encode(SECRET.encode()).decode()],
)
def test_a_known_value_is_replaced_by_its_name_in_every_form(form: str) -> None:
    masked = Masker({SECRET: "MY_TOKEN"}).text(f"before {form} after")
    assert "[secret:MY_TOKEN]" in masked
    assert form not in masked
    assert masked.startswith("before ")


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_base64_is_found_at_every_alignment(before: bytes, after: bytes) -> None:
    encoded = base64.b64encode(before + SECRET.encode() + after).decode()
    assert "[secret:MY_TOKEN]" in Masker({SECRET: "MY_TOKEN"}).text(encoded)


@pytest.mark.parametrize(
    "text",
    [
        "hf_" + "aB3" * 11,
        "sk-ant-api03-" + "x" * 40,
        "sk-proj-" + "y" * 48,
        "ghp_" + "Z" * 36,
        "AKIA" + "ABCDEFGH12345678",
        "xoxb-1234567890-abcdef",
        "AIza" + "b" * 35,
        "Authorization: Bearer " + "t0ken" * 6,
        "https://user:hunter22@example.org/x",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_shapes_of_keys_are_masked_though_nobody_named_them(text: str) -> None:
    assert "[secret:" in Masker({}).text(f"see {text} there")


@given(st.text())
def test_masking_twice_changes_nothing(text: str) -> None:
    masker = Masker({SECRET: "MY_TOKEN", "abcdefgh": "OTHER_KEY"})
    for mixed in (text, f"{text}{SECRET}{text}", f"://u:{SECRET}@h hf_{'a' * 30}{text}"):
        once = masker.text(mixed)
        assert masker.text(once) == once
        assert SECRET not in once


def test_data_is_searched_through_and_left_alone_where_there_is_nothing() -> None:
    masker = Masker({SECRET: "MY_TOKEN"})
    clean = {"a": [1, "two", (3.0, None)], "b": b"raw"}
    assert masker.data(clean) is clean
    masked = masker.data({"a": [f"x {SECRET}"], SECRET: ("y", SECRET)})
    assert masked == {"a": ["x [secret:MY_TOKEN]"], "[secret:MY_TOKEN]": ("y", "[secret:MY_TOKEN]")}


def test_secrets_of_the_environment_are_known_by_their_names(tmp_path) -> None:
    (tmp_path / "token").write_text("hf_storedtokenvalue\n")
    found = known_secrets(
        {
            "OPENAI_API_KEY": "value-one-long",
            "DB_PASSWORD": "value-two-long",
            "SHORT_TOKEN": "abc",
            "HOME": "/root/somewhere",
            "TOKEN_LIMIT": "1234567890",
            "SSH_AUTH_SOCK": "/tmp/socket-path",
            "HF_HOME": str(tmp_path),
        }
    )
    assert found == {
        "value-one-long": "OPENAI_API_KEY",
        "value-two-long": "DB_PASSWORD",
        "hf_storedtokenvalue": "HF_TOKEN",
    }
