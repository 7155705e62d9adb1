"""Secrets and control characters: neither in any text that is shown or written."""

from __future__ import annotations

import base64
import time
import traceback
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from converters import redaction
from converters.errors import HubError, system_errors
from converters.redaction import one_line, printable, printable_values, redacted, remember, remember_secret

SECRET = "sEcReT/Sentinel+1"
TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch):
    monkeypatch.setattr(redaction, "_remembered", set())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:S@host/a/BiT.npz?token=S#S", "https://host/a/BiT.npz?…"),
        ("hf://user:S@google/bit-50@main", "hf://google/bit-50@main"),
        ("https://S@host/x", "https://host/x"),
        ("http://user:S@[bad/", "http://[bad/"),
        ("http://user:a/S@host/x", "http://host/x"),
        ("http:/user:S@host/x", "http:/host/x"),
        ("//user:S@host/x", "//host/x"),
        ("user:S@host/x", "***@host/x"),
        ("http://user:S", "http://user:***"),
        ("https://archive/http://user:S@host/x", "https://archive/http://host/x"),
        ("'https://host/x?X-Amz-Signature=S'. Check it.", "'https://host/x?…'. Check it."),
        ("/x?X-Amz-Credential=S&a=b", "/x?X-Amz-Credential=***&a=b"),
        ("X-Amz-Security-Token: S", "X-Amz-Security-Token: ***"),
        ('{"token": "S", "error": "gone"}', '{"token": "***", "error": "gone"}'),
        ("Authorization: Basic S", "Authorization: ***"),
        ("{'authorization': 'Bearer S'}", "{'authorization': ***"),
        ("Set-Cookie: session=S; Path=/", "Set-Cookie: ***"),
        ("refused: Bearer S", "refused: Bearer ***"),
    ],
)
def test_what_is_secret_by_its_place_is_taken_out(text, shown):
    assert printable(text.replace("S", "sEcReT123")) == shown.replace("S", "sEcReT123")
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "hf://google/bit-50@v1.0",
        "https://huggingface.co/google/bit-50/tree/main",
        "http://127.0.0.1:8080: gave up. Check the network.",
        "http://[::1]:8080/BiT.npz",
        "hf_hub_download of hf_checkpoints",
        "no token: log in with `hf auth login`",
        "Bearer authentication is needed",
        "resnet/block1/unit01/a/standardized_conv2d/kernel",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "/data/models@2x/BiT-M-R50x1.npz: holds R50x1 (units 3-4-6-3), 1000 classes",
        "two\nlines\tand a tab, naïve and 日本語",
    ],
)
def test_what_is_no_secret_stays(text):
    assert printable(text) == text


def test_tokens_of_the_hub_are_known_by_their_looks_in_base64_too():
    assert TOKEN not in printable(f"bad token {TOKEN}!")
    for before in ("", "x", "me:"):
        encoded = base64.b64encode((before + TOKEN).encode()).decode()
        assert encoded[8:24] not in printable(f"you sent {encoded}")


@pytest.mark.parametrize("option", ["", "--checkpoint="])
def test_secrets_of_a_given_address_are_taken_out_wherever_they_are_echoed(option):
    remember(f"{option}http://user:{quote(SECRET, safe='')}@host/x?key=QueryValue")
    for form in (SECRET, quote(SECRET), quote(SECRET, safe=""), f"a{SECRET}b", "QueryValue"):
        hidden = "a***b" if form.startswith("a") else "***"
        assert printable(f"the server says: {form} is wrong") == f"the server says: {hidden} is wrong"
    for before in ("", "x", "xy"):
        encoded = base64.b64encode((before + "user:" + SECRET).encode()).decode()
        assert printable(f"header {encoded}") == "header ***"
    assert redacted("the user at host asked for the ordinary") == "the user at host asked for the ordinary"


def test_words_of_addresses_without_secrets_are_not_taken_out():
    for address in ("hf://google/bit-50@main", "https://host:8080/a?tf-hub-format=compressed", "BiT-M-R50x1"):
        remember(address)
    assert printable("google main compressed 8080 BiT-M-R50x1") == "google main compressed 8080 BiT-M-R50x1"


def test_tokens_of_the_environment_and_of_this_run_are_taken_out(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "not/like/a/token")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxy-password@proxy:3128")
    remember_secret("browser-login")
    assert printable("not/like/a/token, proxy-password, browser-login") == "***, ***, ***"


def test_what_a_terminal_obeys_is_made_visible():
    assert printable("\x1b[31mred\x07\r\x9b \u202egpj.exe\u2069 \ud800 caf\udce9 \u2028") == (
        r"\x1b[31mred\x07\x0d\x9b \u202egpj.exe\u2069 \ud800 caf\xe9 \u2028"
    )
    assert one_line("a\n b\x1b" + "c" * 400, 20) == r"a b\x1b" + "c" * 12 + "…"


def test_every_text_of_a_value_is_printable():
    @dataclass(frozen=True)
    class Part:
        name: str
        count: int

    value = {"http://u:pw@h": [Part("a\x1b", 3), ("hf://u:pw@n/m", None)]}
    assert printable_values(value) == {"http://h": [Part(r"a\x1b", 3), ("hf://n/m", None)]}


def test_errors_and_what_led_to_them_hold_no_secret():
    def fail() -> None:
        with system_errors():
            try:
                raise ValueError("answer of https://host/x?X-Amz-Signature=sEcReT")
            except ValueError as error:
                raise HubError("https://me:sEcReT@host/x: \x1b[2J") from error

    with pytest.raises(HubError) as caught:
        fail()
    assert str(caught.value) == r"https://host/x: \x1b[2J"
    assert "answer of https://host/x?…" in "".join(traceback.format_exception(caught.value))
    assert "sEcReT" not in "".join(traceback.format_exception(caught.value)).replace('"', "").partition("raise ")[0]


MARKS = [
    "://",
    "hf:",
    "http:/",
    "@",
    ":",
    "/",
    "?",
    "#",
    "%40",
    "[",
    "=",
    "token",
    "hf_",
    "Basic ",
    "\x1b",
    "sEcReT123",
    " ",
]


ODD = st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=3))).map("".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ODD)
@example("hf:hf:\x1b@hf:")
@example("http:/@hf:hf:")
@example("http:/@/hf:http:/sEcReT123#")
def test_no_text_is_too_odd(text):
    once = printable(text)
    assert printable(once) == once


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ODD)
def test_nothing_that_is_remembered_is_too_odd(text):
    remember(text)
    printable(text)


@given(st.lists(st.sampled_from(["/", "?a=", "#", "[", "]", ":", "%40", "x", "%"]), max_size=6).map("".join))
def test_user_info_is_taken_out_of_the_oddest_address(ending):
    for scheme in ("http://", "hf://", "kaggle://", "gs://", "http:/"):
        assert "sEcReT123" not in printable(f"{scheme}user:sEcReT123@{ending}")


@pytest.mark.parametrize(
    "text", ["at user:s3cret@host", "/a:user:s3cret@host", "[::1]:user:s3cret@host", "a:b:s3cret@[::1]"]
)
def test_a_password_is_hidden_without_a_scheme(text):
    assert "s3cret" not in printable(text)


@pytest.mark.parametrize("text", ["repo/image:tag@sha256", "a:b@c", "12:30@home", "a::b@c", ":name@host"])
def test_what_is_no_password_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "a.",
        "A",
        "a-",
        "a:",
        "a://",
        "%3A%2F%2F",
        "a:bbb@",
        "http://h/?)",
        "hf_aaaaaaa",
        "token:",
        "//",
        "x-amz-",
        "/a:",
    ],
)
def test_a_long_text_takes_no_longer_than_its_length(piece):
    text = piece * (200_000 // len(piece)) + "@"
    start = time.thread_time()
    printable(text)
    assert time.thread_time() - start < 3
