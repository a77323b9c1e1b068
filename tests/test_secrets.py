from __future__ import annotations

import base64
import html
import io
import json
import random
import re
import string
import time
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ml_intern.secrets import MaskedStream, Masker, find_secrets, known_secrets

SECRET = "s3cr3t+value/xyz!42"
AWKWARD = "p\"ä'\\s w/ö&rd <n>"
ROOT = Path(__file__).resolve().parents[1]
FORMS = {
    "plain": lambda s: s,
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "url-safe base64": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "url": lambda s: quote(s, safe=""),
    "path": quote,
    "form": quote_plus,
    "lower case url": lambda s: re.sub("%..", lambda match: match[0].lower(), quote(s, safe="")),
    "json": json.dumps,
    "json in json": lambda s: json.dumps(json.dumps({"a": s})),
    "unicode json": lambda s: json.dumps(s, ensure_ascii=False),
    "repr": repr,
    "repr of json": lambda s: repr(json.dumps(s)),
    "html": html.escape,
    "hex": lambda s: s.encode().hex(),
    "HEX": lambda s: s.encode().hex().upper(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [SECRET, AWKWARD, "plain-8c"])
def test_a_known_value_is_replaced_by_its_name_in_every_form(form: str, secret: str) -> None:
    shown = FORMS[form](secret)
    masked = Masker({secret: "MY_TOKEN"}).text(f"before {shown} after")
    assert "[secret:MY_TOKEN]" in masked and masked.startswith("before ") and masked.endswith(" after")
    left = masked.replace("[secret:MY_TOKEN]", "").removeprefix("before ").removesuffix(" after")
    assert len(left) <= 16 and shown not in masked, "at most the ends of base64, quotes and braces are left"


def test_the_longest_of_overlapping_values_goes_and_nothing_is_left_of_either() -> None:
    masker = Masker({"abcdefgh": "A", "abcdefghijkl": "B", "ghijklmnop": "C"})
    assert masker.text("x abcdefghijkl y abcdefgh z") == "x [secret:B] y [secret:A] z"
    assert masker.text("x abcdefghijklmnop y") == "x [secret:B] y"


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
        "-----BEGIN PRIVATE KEY-----\\nMIIabcdefghi\\n-----END PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n" + ("b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ" * 2 + "\n") * 3,
        "AKIAABCDEFGH12345678,wJalrXUtnFEMIzK7MDENGzbPxRfiCYzEXAMPLEKz",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKz",
        "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKz",
        "Authorization: Basic " + base64.b64encode(b"user:pa55word").decode(),
        "authorization: token abcdef123456",
        "curl -u me:s3cretpw https://example.org",
        "postgres://bob:pw12@db.internal/x",
        'password = "hunter2!"',
        'password="correct horse battery staple"',
        "PASSWORD: P@ssw0rd!",
        "passphrase: 'open sesame now'",
        "api_key: 9f8e7d6c5b4a39281706",
        '"api_key": "abcdEFGH12345678"',
        '{\\"password\\": \\"hunter22\\"}',
        "DB_PASSWORD=correcthorse",
        "export WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567",
        "client_secret=GHt56-aBcDeFgHiJkLm",
        "clientSecret: 'aB3dE5fG7hI9'",
        'secret = "supersecretvalue"',
        'token="abc123def456ghi789"',
        "--token abcdef0123456789XYZ",
        "machine api.wandb.ai\n  login user\n  password 0123456789abcdef01234567",
        "https://hooks.slack.com/services/T00/B00/abcdefghijklmnopqrstuvwx",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijklmnop",
    ],
)
def test_shapes_of_keys_are_masked_though_nobody_named_them(text: str) -> None:
    masked = Masker({}).text(f"see {text} there")
    assert "[secret:" in masked
    assert Masker({}).text(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        'token = tokenizer("hello world 12345678901234567890")',
        "max_tokens=4096, num_tokens: 1234567890123456, tokens = 123456789012345678",
        "key=lambda x: x.token",
        "hf_hub_download(repo_id, token=hf_token)",
        "password=getpass(), password: str = None, password=self.settings.password1",
        'api_key=os.environ["OPENAI_API_KEY"], api_key=api_key, api-key: <your key>',
        'pad_token="<|endoftext|>", eos_token_id=50256, tokenizer_class: "PreTrainedTokenizerFast2024"',
        "commit 2962ff2d0b5f3c1e9a8d7c6b5a49382716051423",
        "sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "id 550e8400-e29b-41d4-a716-446655440000",
        'secrets={"HF_TOKEN": token}, secret: HF_TOKEN',
        "Enter your password: \npassword is required, forgot your password: click here",
        '"password": "The password of the user."',
        "mean_token_accuracy=0.9312345678901234, token_accuracy: 0.8123456789012345",
        "bearer of bad news 12, Basic training of a model, the basic idea: this",
        "machine learning login page password policy",
        "https://user@host/x http://localhost:8080/path@x git@github.com:me/x.git",
        "sk-learn-is-a-long-hyphenated-name-for-things risk-assessment",
        'if "-----BEGIN RSA PRIVATE KEY-----" in text: raise ValueError("a key, -----END RSA PRIVATE KEY-----")',
        'f"https://{user}:{token}@huggingface.co/{repo}" f"Bearer {token}"',
    ],
)
def test_ordinary_words_code_and_metrics_stay_as_they_are(text: str) -> None:
    assert Masker({}).text(text) == text


def test_the_source_of_this_project_and_of_what_it_builds_on_has_no_secret_in_it() -> None:
    import huggingface_hub
    import smolagents

    folders = [ROOT / "ml_intern", ROOT / "tools", *(Path(m.__file__).parent for m in (smolagents, huggingface_hub))]
    masker, size = Masker({}), 0
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        size += len(text)
        assert masker.found(text) == [], path
    assert size > 2_000_000


PIECES = st.sampled_from(
    [SECRET, "abcdefgh", "hf_" + "a" * 30, "sk-ant-" + "b" * 24, "://u:", "@h", "password", "token", "secret", "api_key", '"', "'",
     "=", ": ", "Bearer ", "basic ", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "A1b2" * 11, "[secret:X]",
     "[secret:", "]", "\\", "\n", " ", "--", "AKIA", "machine ", " login x password ", "curl -u ", "authorization:", "eyJ", "."]
)  # fmt: skip
MIXED = st.lists(PIECES | st.text(max_size=6), max_size=14)


@given(MIXED)
@example(["password", "=", "[secret:X]", "A1b2" * 11])
def test_masking_twice_changes_nothing(pieces: list[str]) -> None:
    masker = Masker({SECRET: "MY_TOKEN", "abcdefgh": "OTHER_KEY"})
    once = masker.text("".join(pieces))
    assert masker.text(once) == once
    assert SECRET not in once and "abcdefgh" not in once


@given(MIXED, st.data())
def test_what_is_cut_into_pieces_is_masked_as_the_whole(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    masker = Masker({SECRET: "MY_TOKEN", "abcdefgh": "OTHER_KEY"})
    stream, shown = MaskedStream(masker), ""
    while text:
        size = data.draw(st.integers(1, 12))
        shown, text = shown + stream.feed(text[:size]), text[size:]
    shown += stream.end()
    assert SECRET not in shown and "abcdefgh" not in shown
    whole = masker.text("".join(pieces))
    assert all(key in whole for key in ("a" * 30, "b" * 24) if key in shown), "nothing is shown that the whole hides"
    if whole == "".join(pieces):
        assert shown == whole


def test_a_secret_is_not_cut_from_the_word_that_makes_it_one() -> None:
    key = "A1b2" * 11 + "a" * 30
    stream = MaskedStream(Masker())
    shown = stream.feed(f"Bearer {key}password") + stream.feed('"') + stream.end()
    assert "a" * 30 not in shown


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("form", FORMS)
def test_a_secret_in_two_pieces_is_found_in_every_form(form: str, size: int) -> None:
    text = f'loss=0.1 {FORMS[form](SECRET)} and hf_{"Zx9" * 11} then password = "hunter2!"\nThe end.'
    stream = MaskedStream(Masker({SECRET: "MY_TOKEN"}))
    shown = "".join(stream.feed(text[start : start + size]) for start in range(0, len(text), size)) + stream.end()
    assert shown == Masker({SECRET: "MY_TOKEN"}).text(text)


def test_a_stream_holds_back_nothing_but_the_beginnings_of_secrets() -> None:
    stream = MaskedStream(Masker({SECRET: "MY_TOKEN"}))
    assert (
        stream.feed("Step 12: loss 0.25, the machine learning rate is 3.")
        == "Step 12: loss 0.25, the machine learning rate is 3."
    )
    assert stream.feed("and now s3cr3") == "and now "
    assert stream.feed("t, no more") == "s3cr3t, no more"
    assert stream.feed(" hf_" + "a" * 30) == " "
    assert stream.feed("b and") == "[secret:hub-token] and"
    assert stream.feed(" pass") == " " and stream.end() == "pass"


PROBE_NS = 1.8
"""Nanoseconds a character that the plain search takes where nothing else runs."""


@pytest.mark.parametrize("characters, milliseconds", [(1_000_000, 60), (4_096, 0.2)])
def test_masking_is_fast(characters: int, milliseconds: float) -> None:
    draw = random.Random(1)
    letters = string.ascii_letters + string.digits
    masker = Masker({"".join(draw.choices(letters, k=draw.randint(8, 40))): f"S{n}_TOKEN" for n in range(60)})
    lines = (
        f"step {n} loss={draw.random():.4f} max_tokens=4096 token/s {draw.random() * 1000:.1f}\n"
        for n in range(20_000)
    )
    text = "".join(lines)[:characters]
    took, bar = float("inf"), 0.0
    probe = float("inf")
    for _ in range(80 if characters > 100_000 else 2_000):
        start = time.thread_time()
        assert masker.text(text) == text
        middle = time.thread_time()
        for absent in ("\x01zq!", "~~xq", "qzj%"):
            assert text.count(absent) == 0
        probe = min(probe, time.thread_time() - middle)
        took = min(took, (middle - start) * 1000)
        # On a machine that is busy all is slower: a plain search says by how much.
        bar = milliseconds * max(1.0, probe * 1e9 / characters / PROBE_NS)
        if took < bar:
            break
    assert took < bar


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


def test_values_that_the_key_gives_away_and_nothing_else() -> None:
    masker = Masker({})
    plain = {
        "token": "the word",
        "password": "",
        "api_key": None,
        "path": "a/b",
        "eos_token": "x1" * 12,
        "uuid": "a1" * 16,
        "secret": 3,
    }
    assert masker.data(plain) is plain
    assert masker.data({"password": "hunter22", "client_secret": "aB3dE5fG7hI9", "token": "abc123def456ghi789"}) == {
        "password": "[secret:password]",
        "client_secret": "[secret:key]",
        "token": "[secret:token]",
    }


def test_signatures_and_images_are_left_alone_and_other_data_is_not() -> None:
    masker = Masker({SECRET: "MY_TOKEN"})
    encoded = base64.b64encode(SECRET.encode()).decode()
    thinking = {"type": "thinking", "thinking": "hm", "signature": f"AKIA{'A' * 16}/{encoded}"}
    image = {"type": "base64", "media_type": "image/png", "data": f"iVBORw0KGgo{encoded}"}
    assert masker.data(thinking) is thinking and masker.data(image) is image
    assert encoded not in str(masker.data({**image, "media_type": "text/plain"}))
    assert encoded not in str(masker.data({**image, "data": encoded})), "no image begins so"
    assert SECRET not in str(masker.data({**thinking, "thinking": SECRET}))


def test_declared_secrets_dotenv_stored_tokens_and_addresses(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "token").write_text("hf_active_token_1")
    (tmp_path / "hub" / "stored_tokens").write_text(
        "[work]\nhf_token = hf_work_token_22\n\n[home]\nhf_token = hf_active_token_1\n"
    )
    (tmp_path / ".env").write_text("# mine\nexport STRIPE_KEY='from-dot-env-1'\nCOLOUR=turquoise\n")
    (tmp_path / "list.txt").write_text("first-declared\nNICK=second-declared\ntiny\n")
    found = find_secrets(
        {
            "HF_HOME": str(tmp_path / "hub"),
            "ML_INTERN_SECRETS": f"COLLEAGUE, MISSING, {tmp_path}/list.txt, /not/there",
            "COLLEAGUE": "ada lovelace",
            "DATABASE_URL": "postgres://u:pw%2Fin-url@h/db",
            "SLACK_WEBHOOK_URL": "https://hooks.example/abc",
            "AWS_ACCESS_KEY_ID": "AKIAABCDEFGH12345678",
            "DB_PASSWORD": "short",
            "USE_TOKEN": "true",
            "TOKENIZER": "bert-base-uncased",
            "TOKENIZERS_PARALLELISM": "disabled",
            "PWD": "/root/somewhere",
            "MAX_TOKENS": "123456789",
            "POSTGRES_PASSWORD": "postgres",
        },
        folder=tmp_path,
    )
    assert found.values == {
        "hf_active_token_1": "HF_TOKEN",
        "hf_work_token_22": "HF_TOKEN_work",
        "from-dot-env-1": "STRIPE_KEY",
        "ada lovelace": "COLLEAGUE",
        "first-declared": "list-1",
        "second-declared": "NICK",
        "pw/in-url": "DATABASE_URL",
        "https://hooks.example/abc": "SLACK_WEBHOOK_URL",
        "AKIAABCDEFGH12345678": "AWS_ACCESS_KEY_ID",
    }
    said = " ".join(found.warnings)
    assert all(name in said for name in ("DB_PASSWORD", "MISSING", "list-3", "/not/there", "POSTGRES_PASSWORD")), (
        found.warnings
    )
    assert "USE_TOKEN" not in said and "short." not in said and "tiny" not in said


def test_a_file_is_searched_in_parts_and_binary_ones_too() -> None:
    masker = Masker({SECRET: "MY_TOKEN", "another-value": "OTHER_KEY"})
    for before in (0, 5, (1 << 20) - 7, 3 << 20):
        assert masker.found_in(io.BytesIO(b"\xff\x00" * (before // 2) + SECRET.encode() + b"\xfe" * 9)) == ["MY_TOKEN"]
    assert masker.found_in(io.BytesIO(b"nothing password = 'hunter2!'")) == []
