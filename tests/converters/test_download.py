"""Downloads against a real server with faults: the right bytes once, or an error that says what to do."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import converters
from converters.download import retry
from converters.download.addresses import MIRRORS, fetchable
from converters.download.cache import cache_folder
from converters.download.http import MAX_VERSIONS, cached
from converters.download.retry import Pace
from converters.errors import CheckpointError, HubError, UsageError
from converters.redaction import printable
from tests.command_line import refused
from tests.file_server import Fault, FileServer, RawServer

ROOT = Path(__file__).parents[2]
PATH = "/vtab/BiT-tiny.npz"
QUICK = {"pace": Pace(first=0.001, silence=5.0, patience=5.0)}
BRIEF = {"pace": Pace(first=0.001, silence=0.1)}
HASTY = {"pace": Pace(first=0.001, silence=0.01, patience=0.01)}


def npz(kilobytes: int = 1024, seed: int = 0) -> bytes:
    file = io.BytesIO()
    np.savez(file, kernel=np.random.default_rng(seed).normal(size=kilobytes * 128))
    return file.getvalue()


TRUSTED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
DATA, OTHER, TINY = npz(seed=0), npz(seed=1), npz(0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    for variable in list(os.environ):
        if variable.lower().endswith("_proxy") or variable in TRUSTED:
            monkeypatch.delenv(variable)
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server():
    with FileServer({PATH: DATA}) as server:
        yield server


def kept(cache: Path) -> list[str]:
    """The files in the cache that hold anything of a download."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


# Whole and once


def test_a_file_is_fetched_once_and_keeps_its_name(server, cache):
    steps: list[tuple[int, int]] = []
    path = cached(server.url(PATH), size=len(DATA), progress=lambda what, *step: steps.append(step), **QUICK)
    assert path.name == "BiT-tiny.npz"
    assert path.is_relative_to(cache)
    assert path.read_bytes() == DATA
    assert steps[0] == (0, len(DATA))
    assert steps[-1] == (len(DATA), len(DATA))
    assert steps == sorted(steps)
    assert cached(server.url(PATH), size=len(DATA)) == path
    assert len(server.requests) == 1
    assert kept(cache) == ["BiT-tiny.npz", "entry.json"]


@pytest.mark.slow
def test_a_download_cut_fifty_times_fetches_hardly_more_than_the_file(server):
    data = npz(4096)
    server.files[PATH] = data
    offsets = np.sort(np.random.default_rng(7).integers(0, len(data), 50))
    lengths = np.diff(offsets, prepend=0).tolist()
    md5 = {"x-goog-hash": f"md5={base64.b64encode(hashlib.md5(data).digest()).decode()}"}
    server.faults = [Fault(cut=length, reset=i % 5 == 4, headers=md5) for i, length in enumerate(lengths)]
    path = cached(server.url(PATH), size=len(data), **QUICK)
    assert path.read_bytes() == data
    assert len(server.requests) == 51
    assert server.sent <= 1.05 * len(data)


FAULTS = st.sampled_from(
    [
        None,
        Fault(status=503),
        Fault(status=429, headers={"Retry-After": "0"}),
        Fault(no_answer=True),
        Fault(ignores_range=True, cut=300_000),
        Fault(headers={"ETag": None, "Last-Modified": None}, cut=200_000),
        Fault(headers={"ETag": 'W/"weak"'}, cut=200_000),
        Fault(chunked=True, cut=400_000),
        Fault(cut=100_000, reset=True),
        Fault(headers={"Content-Length": str(len(DATA) + 7)}),
    ]
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(FAULTS | st.builds(lambda cut: Fault(cut=cut), st.integers(0, len(DATA))), max_size=MAX_VERSIONS)
)
def test_whatever_passing_faults_there_are_the_bytes_are_right(cache, faults):
    """As many as other versions are put up with, since each may look like one."""
    with FileServer({PATH: DATA}) as server:
        server.faults = [*faults]
        path = cached(server.url(PATH), **QUICK)
    assert path.read_bytes() == DATA


def test_a_server_that_ignores_range_is_noticed(server):
    server.faults = [Fault(cut=500_000), Fault(ignores_range=True)]
    assert cached(server.url(PATH), **QUICK).read_bytes() == DATA
    assert server.requests[1].headers["Range"] == "bytes=500000-"
    assert server.requests[1].headers["If-Range"] == server.etag(PATH)


def test_a_version_that_changes_under_a_download_is_noticed(server):
    server.faults = [Fault(cut=500_000)]

    def change(what: str, done: int, total: int) -> None:
        if done == 500_000:
            server.files[PATH] = OTHER

    assert cached(server.url(PATH), progress=change, **QUICK).read_bytes() == OTHER


REST = {"Content-Range": f"bytes 500000-{len(DATA) - 1}/{len(DATA)}"}


@pytest.mark.parametrize(
    "headers",
    [
        REST | {"ETag": '"another"'},
        REST | {"Last-Modified": "Tue, 03 Jan 2023 03:04:05 GMT"},
        {"Content-Range": f"bytes 500000-{len(DATA)}/{len(DATA) + 1}"},
        {"Content-Range": f"bytes 400000-{len(DATA) - 1}/{len(DATA)}"},
        {},
    ],
    ids=["etag", "date", "length", "offset", "no-range"],
)
def test_a_part_that_does_not_fit_is_thrown_away(server, headers):
    server.faults = [Fault(cut=500_000), Fault(status=206, body=OTHER[500_000:], headers=headers)]
    assert cached(server.url(PATH), **QUICK).read_bytes() == DATA
    assert len(server.requests) == 3


def test_a_server_that_never_agrees_with_itself_is_given_up(server):
    for faults in (
        9 * [Fault(cut=500_000), Fault(status=206)],
        [Fault(cut=9, headers={"ETag": f'"{i}"'}) for i in range(9)],
    ):
        server.faults = faults
        with pytest.raises(HubError, match="another version"):
            cached(server.url(PATH), **QUICK)


def test_a_part_of_another_version_under_the_same_name_is_found_by_the_digest(server):
    md5 = {"x-goog-hash": f"md5={base64.b64encode(hashlib.md5(DATA).digest()).decode()}"}
    headers = REST | {"ETag": server.etag(PATH)}
    server.faults = [Fault(cut=500_000, headers=md5), Fault(status=206, body=OTHER[500_000:], headers=headers)]
    assert cached(server.url(PATH), **QUICK).read_bytes() == DATA
    assert len(server.requests) == 3


def test_a_file_without_a_strong_validator_is_never_pieced_together(server):
    server.always = Fault(headers={"ETag": 'W/"1"'})
    server.faults = [Fault(headers={"ETag": 'W/"1"'}, cut=500_000)]
    assert cached(server.url(PATH), **QUICK).read_bytes() == DATA
    assert "Range" not in server.requests[1].headers


def test_an_old_date_is_a_validator_and_a_fresh_one_is_not(server):
    for modified, resumed in (("Mon, 02 Jan 2023 03:04:05 GMT", True), ("Mon, 02 Jan 2093 03:04:05 GMT", False)):
        server.always = Fault(headers={"ETag": None, "Last-Modified": modified})
        server.faults = [Fault(headers=server.always.headers, cut=500_000)]
        assert cached(server.url(PATH) + f"?{resumed}", **QUICK).read_bytes() == DATA
        assert ("Range" in server.requests[-1].headers) is resumed


# The cache


def test_a_cached_file_is_trusted_only_when_whole(server):
    path = cached(server.url(PATH), size=len(DATA), **QUICK)
    for spoil in (lambda: os.truncate(path, 1000), path.unlink, lambda: path.write_bytes(OTHER)):
        spoil()
        assert cached(server.url(PATH), size=len(DATA), **QUICK) == path
        assert path.read_bytes() == DATA
    assert len(server.requests) == 4


def test_a_new_version_gets_its_own_entry_and_the_old_one_stays(server):
    old = cached(server.url(PATH), **QUICK)
    assert cached(server.url(PATH), **QUICK) == old
    assert server.sent == len(DATA)
    server.files[PATH] = OTHER
    new = cached(server.url(PATH), **QUICK)
    assert (old.read_bytes(), new.read_bytes()) == (DATA, OTHER)


def test_the_cached_file_serves_when_the_server_cannot_be_asked(server, caplog):
    path = cached(server.url(PATH), **QUICK)
    server.faults = [Fault(status=503), Fault(no_answer=True)]
    assert cached(server.url(PATH), **QUICK) == path
    assert cached(server.url(PATH), **QUICK) == path
    assert "503" in caplog.text


@pytest.mark.parametrize("variable", ["BIT_CONVERT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nothing(server, monkeypatch, variable):
    with pytest.raises(HubError, match="not in the cache") as caught:
        cached(server.url(PATH), offline=True)
    assert caught.value.exit_status == 4
    path = cached(server.url(PATH), **QUICK)
    asked = len(server.requests)
    assert cached(server.url(PATH), offline=True) == path
    monkeypatch.setenv(variable, "1")
    assert cached(server.url(PATH)) == path
    assert len(server.requests) == asked


def test_a_read_only_cache_serves_what_it_holds(server, cache):
    path = cached(server.url(PATH), size=len(DATA), **QUICK)
    (lock,) = (cache / "locks").iterdir()
    lock.unlink()
    for folder in (path.parent.parent, lock.parent, cache):
        folder.chmod(0o500)
    try:
        assert cached(server.url(PATH), size=len(DATA)) == path
    finally:
        for folder in (cache, lock.parent, path.parent.parent):
            folder.chmod(0o700)


def test_the_cache_folder_is_the_one_of_the_environment(monkeypatch):
    monkeypatch.delenv("BIT_CONVERT_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "bit-convert"


def test_a_cache_that_cannot_be_written_is_wrong_usage(server, cache):
    cache.write_text("a file")
    with pytest.raises(UsageError, match="BIT_CONVERT_CACHE"):
        cached(server.url(PATH), **QUICK)


def test_a_full_disk_is_told_before_anything_is_fetched(server, cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UsageError, match="Make room"):
        cached(server.url(PATH), **QUICK)
    assert kept(cache) in ([], ["partial", "partial.json"])


def test_names_from_urls_stay_inside_the_cache(server, cache):
    server.files["/..%2f..%2f.evil/"] = DATA
    path = cached(server.url("/..%2f..%2f.evil/"), size=len(DATA), **QUICK)
    assert path.is_relative_to(cache)
    assert path.name == "evil"


# Two processes, killed processes

FETCH = (
    "import sys; from converters.download.http import cached; "
    "print(cached(sys.argv[1], size=int(sys.argv[2]), progress=lambda what, d, t: print(d, flush=True)))"
)


def fetching(url: str, size: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, url, str(size)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_two_processes_fetch_a_file_once(server):
    server.always = Fault(pause=0.005)
    both = [fetching(server.url(PATH), len(DATA)) for _ in range(2)]
    paths = {process.communicate()[0].splitlines()[-1] for process in both}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == DATA
    assert server.sent == len(DATA)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_download_goes_on_where_it_was(server, cache, how):
    server.faults = [Fault(pause=0.02)]
    process = fetching(server.url(PATH), len(DATA))
    for line in process.stdout:
        if int(line) > 200_000:
            break
    process.send_signal(how)
    process.wait()
    assert kept(cache) == ["partial", "partial.json"]
    there = next(cache.rglob("partial")).stat().st_size
    path = cached(server.url(PATH), size=len(DATA), **QUICK)
    assert path.read_bytes() == DATA
    assert there > 200_000
    assert server.requests[-1].headers["Range"] == f"bytes={there}-"
    assert kept(cache) == ["BiT-tiny.npz", "entry.json"]


KILLED = """
import os, sys
from pathlib import Path
import httpx
from converters.download.http import cached
from tests.killing import killed_at_every_step

url, size, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def fetch(step, progress):
    os.environ["BIT_CONVERT_CACHE"] = f"{folder}/{step}"
    return cached(url, size=size, progress=progress)

def work(step):
    fetch(step, lambda what, done, total: done == total and Path(f"{folder}/{step}.arrived").touch())

def check(step, killed):
    steps = []
    print(fetch(step, lambda *at: steps.append(at)))
    assert not (steps and Path(f"{folder}/{step}.arrived").exists()), "what had arrived was fetched again"

killed_at_every_step(work, check)
"""


@pytest.mark.slow
def test_killed_at_every_step_the_next_run_is_whole(server, tmp_path):
    arguments = [server.url(PATH), str(len(DATA)), str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert len(paths) > 8
    for path in paths:
        assert path.read_bytes() == DATA
        assert "partial" not in kept(path.parent.parent)


# Refusals


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "sign-in"), (403, "sign-in"), (404, "Check the URL"), (410, "Check the URL"), (400, "400")],
)
def test_a_refusal_is_not_repeated(server, cache, status, said):
    server.always = Fault(status=status)
    with pytest.raises(HubError, match=said) as caught:
        cached(server.url(PATH), **QUICK)
    assert server.url(PATH) in str(caught.value)
    assert len(server.requests) == 1
    assert kept(cache) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=429), Fault(no_answer=True), Fault(cut=1000)])
def test_patience_ends_and_what_arrived_is_kept(server, fault):
    server.faults = [Fault(cut=300_000)]
    server.always = Fault(ignores_range=True, cut=1000) if fault.cut else fault
    with pytest.raises(HubError, match=r"(?s)gave up.*run it again"):
        cached(server.url(PATH), pace=Pace(first=0.001, silence=0.5, deadline=20))
    assert len(server.requests) > 1
    server.always = Fault()
    sent = server.sent
    assert cached(server.url(PATH), **QUICK).read_bytes() == DATA
    if not fault.cut:
        assert server.sent - sent == len(DATA) - 300_000


@pytest.mark.slow
def test_retry_after_is_heeded(server):
    server.faults = [Fault(status=429, headers={"Retry-After": "1"})]
    begun = time.monotonic()
    cached(server.url(PATH), **QUICK)
    assert time.monotonic() - begun >= 1


def test_a_wait_beyond_patience_is_not_waited_for(server):
    server.always = Fault(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(HubError, match="asks to wait 3600 s"):
        cached(server.url(PATH), **QUICK)
    assert len(server.requests) == 1


def test_a_host_that_refuses_the_connection(server):
    with FileServer({}) as gone:
        url = gone.url(PATH)
    with pytest.raises(HubError, match="refused"):
        cached(url, **BRIEF)


def test_a_server_that_falls_silent_is_asked_again(server):
    server.faults = [Fault(pause=2.0)]
    assert cached(server.url(PATH), pace=replace(QUICK["pace"], timeout=0.2)).read_bytes() == DATA
    assert len(server.requests) == 2


def test_a_trickle_ends_at_the_deadline(server, cache):
    server.always = Fault(pause=0.05)
    with pytest.raises(HubError, match="not done after"):
        cached(server.url(PATH), pace=replace(QUICK["pace"], deadline=0.3))
    assert kept(cache) == ["partial", "partial.json"]


PAGE = b"<!DOCTYPE html><html><body>Please sign in</body></html>"


@pytest.mark.parametrize(
    ("fault", "expected", "said"),
    [
        (Fault(body=PAGE), {}, "a web page"),
        (Fault(body=PAGE), {"size": len(DATA)}, "a web page"),
        (Fault(body=DATA[:-1]), {}, "no whole .npz"),
        (Fault(body=DATA + b"\n"), {}, "no whole .npz"),
        (Fault(body=b""), {}, "no whole .npz"),
        (Fault(body=DATA[:-5]), {"size": len(DATA)}, "bytes, not the"),
        (Fault(body=DATA[:-5], chunked=True), {"size": len(DATA)}, "bytes arrived, not the"),
        (Fault(body=DATA + DATA, chunked=True), {"size": len(DATA)}, "more than"),
        (Fault(corrupt=77_777, headers={"x-goog-hash": "crc32c=AAAAAA==, md5=XrY7u+Ae7tCTyyK7j1rNww=="}), {}, "MD5"),
        (Fault(headers={"Content-Length": str(len(DATA) - 100)}), {}, "no whole .npz"),
    ],
    ids=["page", "page-sized", "short", "long", "empty", "size", "size-chunked", "endless", "md5", "length"],
)
def test_what_is_not_the_file_is_not_kept(server, cache, fault, expected, said):
    server.always = fault
    with pytest.raises(CheckpointError, match=said) as caught:
        cached(server.url(PATH), **expected, **QUICK)
    assert len(str(caught.value).splitlines()) <= 2
    assert kept(cache) == []


def test_a_length_nobody_tells_is_refused_where_no_check_would_notice_a_cut(server):
    server.files["/weights.h5"] = DATA
    server.always = Fault(headers={"Content-Length": None, "Connection": "close"})
    with pytest.raises(HubError, match="how long"):
        cached(server.url("/weights.h5"), **QUICK)


def test_an_encoded_answer_is_refused(server):
    server.always = Fault(headers={"Content-Encoding": "gzip"})
    with pytest.raises(HubError, match="encoding"):
        cached(server.url(PATH), **QUICK)
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


# Credentials, redirects, environment

SECRET = "sEcReT"


def test_credentials_go_to_their_own_host_only_and_are_never_shown(server, cache, caplog):
    caplog.set_level("DEBUG")
    with FileServer({}) as first:
        first.always = Fault(status=302, headers={"Location": server.url(PATH)})
        path = cached(first.url("/old.npz", user=f"me:{SECRET}"), **QUICK)
        assert path.read_bytes() == DATA
        assert "Authorization" in first.requests[0].headers
        assert "Authorization" not in server.requests[0].headers
        first.always = Fault(status=403)
        with pytest.raises(HubError) as caught:
            cached(first.url("/x.npz", user=f"me:{SECRET}") + f"?signature={SECRET}", **QUICK)
    assert SECRET not in str(caught.value)
    assert SECRET not in printable(f"https://a:{SECRET}@host/x?token={SECRET}#{SECRET}")
    written = b"".join(p.read_bytes() for p in cache.rglob("*.json"))
    assert SECRET.encode() not in written + caplog.text.replace("?signature=" + SECRET, "").encode()


def test_a_redirect_without_end_is_refused(server):
    server.always = Fault(status=302, headers={"Location": PATH})
    with pytest.raises(HubError, match="redirects without end"):
        cached(server.url(PATH), **QUICK)


def test_a_redirect_to_a_local_file_is_refused(server):
    server.always = Fault(status=302, headers={"Location": "file:///etc/passwd"})
    with pytest.raises(HubError):
        cached(server.url(PATH), **BRIEF)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    chain, key = folder / "chain.pem", folder / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(chain)]
    subprocess.run([*make.split(), *names], check=True, capture_output=True)
    return chain, key


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environments_ca_bundle_is_used(certificate, monkeypatch, variable):
    with FileServer({PATH: DATA}, certificate=certificate) as server:
        with pytest.raises(HubError, match="certificate is not trusted"):
            cached(server.url(PATH), **QUICK)
        assert server.requests == []
        monkeypatch.setenv(variable, str(certificate[0]))
        assert cached(server.url(PATH), **QUICK).read_bytes() == DATA


def test_https_does_not_lead_to_http(certificate, server, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with FileServer({}, certificate=certificate) as first:
        first.always = Fault(status=302, headers={"Location": server.url(PATH)})
        with pytest.raises(HubError, match="unprotected http"):
            cached(first.url(PATH), **QUICK)


def test_a_missing_ca_bundle_is_wrong_usage(server, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    with pytest.raises(UsageError, match="REQUESTS_CA_BUNDLE"):
        cached(server.url(PATH), **QUICK)


def test_the_environments_proxy_is_used(monkeypatch):
    # A proxy is asked for the whole URL; this one answers itself.
    with FileServer({"http://bit.invalid" + PATH: DATA}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url("", user=f"me:{SECRET}"))
        assert cached("http://bit.invalid" + PATH, **QUICK).read_bytes() == DATA
        assert "Proxy-Authorization" in proxy.requests[0].headers


# What a server says is not believed

GZIP = {"Content-Encoding": "gzip"}
ENDLESS = bytes(64 << 20)
"""Longer than what is read of any answer that is not the file."""


@pytest.mark.parametrize("headers", [{}, GZIP, {"Content-Length": "1" * 18}], ids=["plain", "compressed", "announced"])
@pytest.mark.parametrize("pause", [0.0, 0.2], ids=["fast", "slow"])
def test_the_body_of_a_redirect_is_not_read(server, headers, pause):
    server.faults = [Fault(status=302, headers={"Location": PATH, **headers}, body=ENDLESS, pause=pause)]
    begun = time.monotonic()
    assert cached(server.url(PATH), **QUICK).read_bytes() == DATA
    assert time.monotonic() - begun < 30, "the slow one takes minutes"
    assert server.sent < len(DATA) + len(ENDLESS) // 4


@pytest.mark.parametrize("status", [404, 503])
def test_the_body_of_an_error_is_not_read(server, status):
    server.always = Fault(status=status, headers=GZIP, body=ENDLESS)
    with pytest.raises(HubError, match=str(status)):
        cached(server.url(PATH), **BRIEF)
    assert server.sent < len(server.requests) * len(ENDLESS) // 4


ODD = {
    "an ETag outside latin-1": {"ETag": '"\xe4\xb8\xad"'},
    "an ETag with a control character": {"ETag": '"\x01"'},
    "an ETag without end": {"ETag": '"' + 60_000 * "x" + '"'},
    "a date beyond the calendar": {"ETag": None, "Last-Modified": "Mon, 02 Jan 99999 03:04:05 GMT"},
    "a zone beyond the day": {"ETag": None, "Last-Modified": "Mon, 02 Jan 2023 03:04:05 +9999"},
    "a date that is none": {"ETag": None, "Last-Modified": "\xff", "Date": "0"},
    "a hash that is none": {"x-goog-hash": "md5=\xff, =, md5"},
    "a length in other digits": {"Content-Length": None, "Content-length": "\xb2", "Transfer-Encoding": None},
    "a length beyond any disk": {"Content-Length": 20 * "9"},
    "a length of 5000 digits": {"Content-Length": 5000 * "9"},
}


@pytest.mark.parametrize("headers", ODD.values(), ids=ODD)
def test_odd_headers_end_in_the_file_or_in_one_error_and_so_do_later_runs(server, headers):
    server.always = Fault(headers=headers)
    server.faults = [Fault(headers=headers, cut=500_000)]
    for _ in range(3):
        with suppress(HubError, UsageError):
            assert cached(server.url(PATH), **BRIEF).read_bytes() == DATA
    server.always = Fault()
    assert cached(server.url(PATH), **QUICK).read_bytes() == DATA


@pytest.mark.parametrize("there", ["9" * 5000, "\xb2", "-1", "18446744073709551616"])
def test_a_content_range_that_is_none_is_thrown_away(server, there):
    headers = {"Content-Range": f"bytes {there}-{there}/{there}"}
    server.faults = [Fault(cut=500_000), Fault(status=206, body=OTHER, headers=headers)]
    assert cached(server.url(PATH), **QUICK).read_bytes() == DATA


@pytest.mark.parametrize("wait", ["9" * 5000, "\xb2", "-5", "Mon, 02 Jan 99999 03:04:05 GMT", "nan", "1e9"])
def test_a_retry_after_that_is_none_is_no_reason_to_wait(server, wait):
    server.faults = [Fault(status=503, headers={"Retry-After": wait})]
    with suppress(HubError):  # the first is a number: more than patience allows
        assert cached(server.url(PATH), **QUICK).read_bytes() == DATA
    assert len(server.requests) <= 2


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"
ANSWERS = {
    "no status": b"\xff\xfe\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status that is none": b"HTTP/1.1 099 \r\n\r\n",
    "a reason outside latin-1": b"HTTP/1.1 404 \xe4\xb8\xad\x1b[2J\r\nContent-Length: 0\r\n\r\n",
    "a header without a name": HEAD + b": x\r\n\r\nabc",
    "a name outside ASCII": HEAD + b"\xc3\xa9: x\r\n\r\nabc",
    "two lengths": HEAD + b"Content-Length: 4\r\n\r\nabc",
    "headers without end": HEAD + b"".join(b"X-%d: x\r\n" % i for i in range(20_000)),
    "chunks that are none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an encoding of transfer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "a range unasked": b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-2/3\r\nContent-Length: 3\r\n\r\nabc",
    "not modified, unasked": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "led to no address": b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n",
    "led to a name that is none": b"HTTP/1.1 302 Found\r\nLocation: http://\xe2\x80\xae/\r\nContent-Length: 0\r\n\r\n",
    "led to a port that is none": b"HTTP/1.1 302 Found\r\nLocation: http://a:99999999/\r\nContent-Length: 0\r\n\r\n",
    "led to bytes": b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_what_is_no_answer_is_a_failure_of_the_network(cache, answer):
    with RawServer(answer) as url, pytest.raises(HubError) as caught:
        cached(url + PATH, **BRIEF)
    assert len(str(caught.value).splitlines()) <= 2
    assert not any(path.stat().st_size for path in cache.rglob("partial"))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["ETag", "Last-Modified", "Date", "Content-Range", "Retry-After", "x-goog-hash", "Location"]),
        st.binary(max_size=40) | st.integers(0, 10**30).map(lambda number: b"%d" % number),
    ),
    st.sampled_from([200, 206, 302, 416, 429, 503]),
)
def test_no_header_makes_anything_but_an_error(cache, headers, status):
    lines = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in headers.items())
    answer = b"HTTP/1.1 %d Any\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(TINY), lines, TINY)
    with RawServer(answer) as url:
        for _ in range(2):
            with suppress(HubError, CheckpointError):
                assert cached(url + PATH, **HASTY).read_bytes() == TINY


@pytest.mark.slow
def test_headers_that_come_byte_by_byte_end_in_time(cache):
    with RawServer(HEAD + b"X-Long: " + b"a" * 600, pause=0.1) as url:
        begun = time.monotonic()
        with pytest.raises(HubError):
            cached(url + PATH, pace=replace(HASTY["pace"], timeout=0.5))
    assert time.monotonic() - begun < 30, "all of them take a minute"


RECORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["sha256", "size", "mtime_ns", "etag", "modified", "origin", "validator", "total", "md5"]),
        RECORDS,
    )
    | RECORDS
)
def test_a_record_of_another_kind_is_thrown_away(cache, record):
    shutil.rmtree(cache, ignore_errors=True)
    with FileServer({PATH: DATA}) as server:
        server.faults = [Fault(cut=300_000), None, Fault(status=403)]
        with suppress(HubError):
            cached(server.url(PATH), pace=replace(HASTY["pace"], silence=0.0))
        for spoilt in ("partial.json", "entry.json"):
            for path in cache.rglob(spoilt):
                known = json.loads(path.read_text())
                changed = {**known, **record} if isinstance(record, dict) else record
                path.write_text(json.dumps(changed))
            server.faults.clear()
            assert cached(server.url(PATH), **QUICK).read_bytes() == DATA


@pytest.mark.parametrize("record", ["", "[" * 100_000, '{"size": ' + "9" * 5000 + "}", "\udcff", '"\\ud800"', "null"])
def test_a_record_that_cannot_be_read_is_thrown_away(server, cache, record):
    path = cached(server.url(PATH), **QUICK)
    (path.parent.parent / "entry.json").write_text(record, errors="surrogateescape")
    assert cached(server.url(PATH), **QUICK).read_bytes() == DATA
    assert len(server.requests) == 2


def test_a_record_of_what_no_header_can_hold_is_thrown_away(server, cache):
    record = cached(server.url(PATH), **QUICK).parents[1] / "entry.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "etag": "x\n"}))
    assert cached(server.url(PATH), **QUICK).read_bytes() == DATA
    assert len(server.requests) == 2


# A host that never answered


def test_a_host_that_never_answered_is_given_up_after_ten_seconds_and_heard_of_within_two(monkeypatch):
    monkeypatch.setattr(retry, "_answered", set())
    clock, said = [0.0], []

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    pace = Pace(sleep=sleep, now=lambda: clock[0])
    with FileServer({}) as gone:
        url = gone.url(PATH)
    with pytest.raises(HubError, match=r"(?s)refused.*Check the network"):
        cached(url, pace=pace, progress=lambda what, done, total: said.append((clock[0], what)))
    assert 7 < clock[0] <= 10
    assert said[0][0] < 2
    assert all("trying again" in what for _, what in said)


@pytest.mark.slow
def test_a_host_that_takes_the_connection_and_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(retry, "_answered", set())
    monkeypatch.setattr(retry, "UNANSWERED", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(HubError, match="Check the network"):
            cached(f"http://127.0.0.1:{silent.getsockname()[1]}{PATH}")
    assert time.monotonic() - begun < 60, "another host is given two minutes"


@pytest.mark.slow
def test_a_host_that_answered_is_waited_for(server, monkeypatch):
    monkeypatch.setattr(retry, "_answered", set())
    monkeypatch.setattr(retry, "UNANSWERED", 0.2)
    server.faults = [Fault(status=503), *4 * [Fault(no_answer=True)]]
    assert cached(server.url(PATH), pace=Pace(first=0.1, silence=30)).read_bytes() == DATA


@pytest.mark.slow
def test_a_wait_that_is_asked_for_is_no_silence(server):
    server.faults = 3 * [Fault(status=429, headers={"Retry-After": "1"})]
    assert cached(server.url(PATH), pace=Pace(first=0.001, silence=0.5)).read_bytes() == DATA


@pytest.mark.parametrize("seconds", [0, 29])
def test_patience_of_the_command_reaches_downloads(server, tmp_path, seconds):
    server.always = Fault(status=429, headers={"Retry-After": "30"})
    arguments = ("--checkpoint", server.url(PATH), "--output", tmp_path / "model", "--patience", seconds)
    begun = time.monotonic()
    assert "asks to wait 30 s" in refused(HubError.exit_status, *arguments)
    assert time.monotonic() - begun < 20
    with pytest.raises(UsageError, match="--patience -1"):
        converters.convert(checkpoint=server.url(PATH), patience=-1)


# Mirrors

BUCKET = "https://storage.googleapis.com/bit_models"


@pytest.fixture(params=["http", "file"])
def mirror(request, server, tmp_path, monkeypatch) -> str:
    """Of Google's bucket, with one file."""
    server.files["/mirror/BiT-tiny.npz"] = DATA
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "BiT-tiny.npz").write_bytes(DATA)
    url = server.url("/mirror/") if request.param == "http" else (tmp_path / "mirror").as_uri() + "/"
    monkeypatch.setenv("BIT_CONVERT_MIRROR", url)
    return url


def test_a_mirror_is_asked_and_the_cache_serves_without_it(mirror, server, monkeypatch):
    path = cached(f"{BUCKET}/BiT-tiny.npz", **QUICK)
    assert path.read_bytes() == DATA
    asked = len(server.requests)
    assert cached("gs://bit_models/BiT-tiny.npz", **QUICK) == path
    monkeypatch.delenv("BIT_CONVERT_MIRROR")
    assert cached(f"{BUCKET}/BiT-tiny.npz", size=len(DATA)) == path
    assert cached(f"{BUCKET}/BiT-tiny.npz", **QUICK) == path
    assert cached("gs://bit_models/BiT-tiny.npz", offline=True) == path
    assert all(request.path.startswith("/mirror/") for request in server.requests)
    assert len(server.requests) <= asked + 1


def test_what_was_fetched_without_a_mirror_serves_with_one(server, monkeypatch):
    monkeypatch.setattr("converters.download.addresses.BUCKETS", server.url(""))
    monkeypatch.setitem(MIRRORS, "BIT_CONVERT_MIRROR", re.compile(re.escape(server.url("/bit_models/"))))
    server.files["/bit_models/BiT-tiny.npz"] = DATA
    path = cached("gs://bit_models/BiT-tiny.npz", **QUICK)
    monkeypatch.setenv("BIT_CONVERT_MIRROR", "http://127.0.0.1:9/")
    assert cached("gs://bit_models/BiT-tiny.npz", **QUICK) == path


def test_a_module_comes_from_the_mirror_of_tfhub(tmp_path, server, monkeypatch):
    address = "https://tfhub.dev/google/bit/m-r50x1/1"
    server.files["/hub/google/bit/m-r50x1/1"] = DATA
    monkeypatch.setenv("BIT_CONVERT_TFHUB_MIRROR", server.url("/hub"))
    assert cached(address, size=len(DATA), **QUICK).read_bytes() == DATA
    place = tmp_path / "google" / "bit" / "m-r50x1"
    place.mkdir(parents=True)
    (place / "2.tar.gz").write_bytes(OTHER)
    monkeypatch.setenv("BIT_CONVERT_TFHUB_MIRROR", tmp_path.as_uri())
    assert cached(address.replace("/1", "/2"), **QUICK).read_bytes() == OTHER


def test_a_mirror_without_the_file_and_one_that_is_none_are_told(mirror, monkeypatch):
    with pytest.raises(HubError, match=r"none\.npz"):
        cached(f"{BUCKET}/none.npz", **QUICK)
    monkeypatch.setenv("BIT_CONVERT_MIRROR", "ftp://host/")
    with pytest.raises(UsageError, match="BIT_CONVERT_MIRROR"):
        cached(f"{BUCKET}/none.npz", **QUICK)


def test_credentials_are_for_the_mirror_alone(server, monkeypatch):
    server.files["/BiT-tiny.npz"] = DATA
    monkeypatch.setenv("BIT_CONVERT_MIRROR", server.url("/", user=f"me:{SECRET}"))
    cached(f"https://you:other@{BUCKET.removeprefix('https://')}/BiT-tiny.npz", **QUICK)
    sent = server.requests[0].headers["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == f"me:{SECRET}"


# Addresses


@pytest.mark.parametrize(
    ("given_", "fetched"),
    [
        ("gs://bit_models/BiT-M-R50x1.npz", "https://storage.googleapis.com/bit_models/BiT-M-R50x1.npz"),
        ("gs://bit_models/a b.npz", "https://storage.googleapis.com/bit_models/a%20b.npz"),
        ("https://tfhub.dev/google/bit/m-r50x1/1", "https://tfhub.dev/google/bit/m-r50x1/1?tf-hub-format=compressed"),
        ("https://example.org/x.npz?a=b", "https://example.org/x.npz?a=b"),
    ],
)
def test_addresses_become_what_can_be_fetched(given_, fetched):
    assert fetchable(given_) == fetched
    assert fetchable(fetched) == fetched


@pytest.mark.parametrize(
    "url", ["ftp://host/x.npz", "file:///etc/passwd", "gs://bucket", "https://", "x", "http://[::1/x"]
)
def test_other_addresses_are_wrong_usage(url):
    with pytest.raises(UsageError):
        fetchable(url)


def test_a_thread_waits_for_another(server):
    server.always = Fault(pause=0.002)
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(cached(server.url(PATH), size=len(DATA), **QUICK)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert server.sent == len(DATA)
