"""The command: ``python -m tests.fuzz --seconds 60 --reader npz --seed 1 --record FILE``.

Each reader runs in a process of its own, so that one that dies is a finding and not the end.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from tests.converters.sources.costs import forget_peak, peak
from tests.fuzz.readers import READERS, Files, Reader, clear

SECONDS = 1.0
"""Of processor time that one input may take."""
MEMORY = 256 << 20
"""Bytes above its own size."""
LONGEST = 20
"""Seconds after which an execution is interrupted: what loops is a finding, and not the end."""
SHOWN = 5
"""Findings of one reader after which it stops."""


class Finding(Exception):
    """An execution that did not keep to the promise."""


class Interrupted(BaseException):
    """An execution that took too long; no error, which a reader could take for one of its library's."""


def fuzz(reader: Reader, seed: int, seconds: float, count: int, place: Path, kept: Path) -> dict[str, Any]:
    """Executes changed inputs for so long, or so many; what came of them. Inputs that were findings lie in ``kept``."""
    from converters.errors import BitConvertError

    random = Random(seed)
    temporary = place / "temporary"
    clear(temporary)
    tempfile.tempdir = str(temporary)
    inputs = _prepared(reader, place)
    begin, executions, outcomes, findings = time.monotonic(), 0, {"read": 0, "refused": 0}, []
    while executions < count and time.monotonic() - begin < seconds and len(findings) < SHOWN:
        folder, files = random.choice(inputs)
        name, change = random.choice([(n, c) for n in files for end, c in reader.changes.items() if n.endswith(end)])
        content = change(files[name], random)
        path = folder / name
        path.write_bytes(content)
        try:
            outcomes[_executed(reader, folder, temporary, files, len(content), (BitConvertError, *reader.also))] += 1
        except Finding as finding:
            findings.append(str(finding))
            kept.mkdir(parents=True, exist_ok=True)
            (kept / f"{seed}-{executions}-{path.name}").write_bytes(content)
            print(f"finding {seed}-{executions} in {name}: {finding}", file=sys.stderr, flush=True)
        path.write_bytes(files[name])
        executions += 1
    spent = time.monotonic() - begin
    reader.end()
    return {"executions": executions, "seconds": round(spent, 1), **outcomes, "findings": findings}


def _prepared(reader: Reader, place: Path) -> list[tuple[Path, Files]]:
    """The good inputs in folders of their own, each read once: what is cached costs no other."""
    from converters.mapping.names import nearest

    nearest(["the table of each scheme is made once"])
    inputs = []
    for number, files in enumerate(reader.seeds()):
        folder = place / f"seed{number}"
        clear(folder)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        reader.read(folder)
        inputs.append((folder, files))
    clear(Path(tempfile.gettempdir()))  # of what PyTorch keeps
    return inputs


def _executed(
    reader: Reader, folder: Path, temporary: Path, files: Files, size: int, allowed: tuple[type[Exception], ...]
) -> str:
    """What came of it. Raises Finding for other errors, for cost beyond the bounds, and for files left anywhere."""
    before, start = forget_peak(), time.process_time()
    outcome = "read"
    try:
        with _interrupting():
            reader.read(folder)
    except allowed:
        outcome = "refused"
    except Interrupted as error:
        raise Finding("".join(traceback.format_exception(error, limit=-4))) from error
    except Exception as error:
        raise Finding("".join(traceback.format_exception(error, limit=-4))) from error
    spent, more = time.process_time() - start, peak() - before - size
    if spent > SECONDS:
        raise Finding(f"{spent:.1f} s")
    if more > MEMORY:
        raise Finding(f"{more >> 20} MB")
    left = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()} ^ set(files)
    left |= {file.name for file in temporary.iterdir()}
    if left:
        raise Finding(f"left or took {sorted(left)[:3]}")
    return outcome


@contextmanager
def _interrupting() -> Iterator[None]:
    """Inside, Python is interrupted after ``LONGEST`` seconds of the processor."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted(f"after {LONGEST} s")

    before = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _child(arguments: argparse.Namespace) -> int:
    """One reader in this process, its result on stdout."""
    warnings.simplefilter("ignore")  # of zipfile, about archives that are made here
    name = arguments.reader
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=arguments.place) as place:
        coverage = _coverage(READERS[name].covers, Path(place)) if arguments.coverage else None
        result = fuzz(
            READERS[name], arguments.seed, arguments.seconds, arguments.count, Path(place), arguments.kept / name
        )
        if coverage is not None:
            result["coverage"] = _covered(coverage)
    print(json.dumps({"reader": name, "seed": arguments.seed, **result}))
    return 1 if result["findings"] else 0


def _coverage(modules: tuple[str, ...], place: Path) -> Any:
    """Lines of ``modules``, those of forked processes as well: these learn from a file what is measured."""
    from coverage import Coverage

    settings = f"[run]\ndata_file = {place}/lines\nparallel = true\nconcurrency = multiprocessing,thread\ninclude ="
    (place / "coveragerc").write_text("\n    ".join([settings, *modules]))
    measured = Coverage(config_file=str(place / "coveragerc"))
    measured.start()
    return measured


def _covered(measured: Any) -> float:
    measured.stop()
    measured.save()
    measured.combine()
    with open(os.devnull, "w") as nowhere:
        return round(float(measured.report(file=nowhere)), 1)


def _run(name: str, seed: int, seconds: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """One reader in a process of its own; what came of it is printed and recorded."""
    command = [sys.executable, "-m", "tests.fuzz", "--child", "--reader", name, "--seed", str(seed)]
    command += ["--seconds", str(seconds), "--count", str(arguments.count), "--kept", str(arguments.kept)]
    command += ["--place", arguments.place] if arguments.place else []
    command += ["--coverage"] if arguments.coverage else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    line = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    if done.returncode not in (0, 1) or not line:
        died = signal.Signals(-done.returncode).name if done.returncode < 0 else f"status {done.returncode}"
        line = json.dumps({"reader": name, "seed": seed, "findings": [f"died of {died}"]})
    print(line, flush=True)
    if arguments.record:
        with arguments.record.open("a") as record:
            record.write(line + "\n")
    result: dict[str, Any] = json.loads(line)
    return result


def _until(names: list[str], arguments: argparse.Namespace) -> bool:
    """Turns of ``--seconds`` until the record has ``--until`` executions of each reader; whether there were findings.

    The reader with the fewest is next, with the seed after its last one: a run that was ended goes on.
    """
    while True:
        totals = _totals(names, arguments.record)
        name = min(names, key=lambda name: totals[name]["executions"])
        if totals[name]["executions"] >= arguments.until:
            break
        _run(name, arguments.seed + totals[name]["runs"], arguments.seconds, arguments)
    for name, total in totals.items():
        print(name, *(f"{key}={number}" for key, number in total.items()))
    return any(total["findings"] for total in totals.values())


def _totals(names: list[str], record: Path) -> dict[str, Counter[str]]:
    """Sums of what the record has of each reader."""
    totals = {name: Counter(runs=0, executions=0, read=0, refused=0, findings=0) for name in names}
    for line in record.read_text().splitlines() if record.exists() else ():
        result = json.loads(line)
        if result["reader"] in totals:
            numbers = {key: result.get(key, 0) for key in ("executions", "read", "refused")}
            totals[result["reader"]].update(runs=1, findings=len(result["findings"]), **numbers)
    return totals


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--reader", choices=[*READERS, "all"], default="all")
    parser.add_argument("--seconds", type=float, default=60, help="for all readers together; with --until for a turn")
    parser.add_argument("--count", type=int, default=1 << 62, help="executions of each reader at most")
    parser.add_argument("--until", type=int, help="run in turns until the record has so many executions of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--coverage", action="store_true", help="measure lines, which takes twice the time")
    parser.add_argument("--record", type=Path, help="append results to this file, a JSON line each")
    parser.add_argument("--kept", type=Path, default=Path("build/fuzz"), help="where findings go")
    parser.add_argument("--place", default="/dev/shm" if Path("/dev/shm").is_dir() else None, help="where inputs lie")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return _child(arguments)
    names = list(READERS) if arguments.reader == "all" else [arguments.reader]
    if arguments.until is not None:
        if arguments.record is None:
            parser.error("--until counts what --record FILE has")
        return int(_until(names, arguments))
    results = [_run(name, arguments.seed, arguments.seconds / len(names), arguments) for name in names]
    return int(any(result["findings"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
