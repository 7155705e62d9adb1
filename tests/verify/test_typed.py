"""Values of a type from plain ones, in several threads: msgspec by itself ends the process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IN_THREADS = """
import sys, threading
sys.setswitchinterval(1e-6)
{setting}
for _ in range(25):
    {forget}
    start = threading.Barrier(4)
    def work():
        start.wait()
        {work}
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""
CATALOGUE = {
    "setting": "from converters.catalogue import variants as catalogue; catalogue.variants()",
    "forget": "del catalogue.Variant.__msgspec_cache__, catalogue.Preprocessing.__msgspec_cache__; "
    "catalogue.variants.cache_clear()",
    "work": "catalogue.find_one('BiT-digits')",
}
RECORDS = {
    "setting": "import dataclasses; from collections.abc import Mapping; from verify.typed import decoded",
    "forget": "Inner = dataclasses.make_dataclass('Inner', [('x', Mapping[str, int])]); "
    "Outer = dataclasses.make_dataclass('Outer', [('y', tuple[Inner, ...])])",
    "work": """assert decoded(b'{"y": [{"x": {"a": 1}}]}', Outer).y[0].x == {"a": 1}""",
}


@pytest.mark.parametrize("work", [CATALOGUE, RECORDS], ids=["catalogue", "records"])
def test_threads_that_meet_a_type_at_once_each_get_their_value(work):
    program = IN_THREADS.format(**work)
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_nobody_else_asks_msgspec_for_a_value_of_a_type():
    code = {
        path: path.read_text(encoding="utf-8")
        for name in ("converters", "verify")
        for path in (ROOT / name).rglob("*.py")
    }
    asking = {
        path.name for path, text in code.items() if re.search(r"msgspec\.(json\.)?(convert|decode|Decoder)\b", text)
    }
    assert asking == {"typed.py"}
