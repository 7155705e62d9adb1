"""Plans: the jobs that a TOML file names, and for whatever is wrong with it the line and the key."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.catalogue.variants import find
from converters.choices import DTYPES, EXACT, LAYOUTS, POOL_PADDINGS
from converters.cli.commands import convert, verify
from converters.errors import UsageError
from converters.options import AuditOptions, ConvertOptions, PublishOptions
from converters.release.located_toml import read
from converters.release.plan import read_plan
from converters.release.plan_keys import AUDITS, KEYS, RELEASES, WORDS
from tests.command_line import elsewhere, run
from tests.command_line import refused as refused_by_command
from tests.hub_server import HubServer, User

ONLY_IN_PLANS = {"exclude", "target"}


@pytest.fixture
def plan(tmp_path):
    """Reads a plan of this text, with these options beside it."""

    def of(text: str, **typed: object):
        (tmp_path / "plan.toml").write_text(text, encoding="utf-8")
        return read_plan(tmp_path / "plan.toml", typed, "bit-convert --plan plan.toml")

    return of


def refused(plan, text: str, **typed: object) -> str:
    """The error, without the folder of the plan."""
    with pytest.raises(UsageError) as found:
        plan(text, **typed)
    assert found.value.exit_status == 2
    assert len(str(found.value).splitlines()) <= 2
    return re.sub(r"^.*plan\.toml", "plan.toml", str(found.value))


# --------------------------------------------------------------------------------------------------------------- jobs


def test_jobs_come_in_the_order_of_tables_and_catalogue(plan):
    planned = plan('[[release]]\nvariant = "BiT-S-*"\n\n[[release]]\nvariant = ["BiT-digits", "BiT-M-R50x1"]\n')
    names = [v.name for v in find("BiT-S-*")] + ["BiT-digits", "BiT-M-R50x1"]
    assert [each.name for each in planned] == names
    assert all(each.publish is None for each in planned)
    assert {each.request.command for each in planned} == {"bit-convert --plan plan.toml"}


def test_a_table_wins_over_the_command_line_and_that_over_defaults(plan):
    text = """
        [defaults]
        push = true
        namespace = "me"
        dtype = "float16"
        layout = "original"
        patience = 5
        [[release]]
        variant = "BiT-M-R50x1"
        layout = "timm"
        [[release]]
        variant = "BiT-M-R50x3"
        max_shard_size = "1GB"
    """
    first, second = plan(text, layout="transformers", dtype="bfloat16")
    assert (first.request.options.layout, first.request.options.dtype) == ("timm", "bfloat16")
    assert (second.request.options.layout, second.request.options.max_shard_size) == ("transformers", 10**9)
    assert first.publish == second.publish == PublishOptions(namespace="me", patience=5)
    assert first.request.options.patience == 5


def test_templates_are_filled(plan):
    text = """
        [defaults]
        namespace = "me"
        output = "models/{layout}-{dtype}"
        repo_id = "{namespace}/{name}-{exact}"
        tag = "{{v1}}-{architecture}-{format}"
        [[release]]
        variant = "vtab/BiT-M-R50x1-run0-dtd"
    """
    (each,) = plan(text, push=True)
    assert each.request.place("x") == Path("models/transformers-float32/x")
    assert each.publish == PublishOptions(repo_id="me/vtab-BiT-M-R50x1-run0-dtd-bits", tag="{v1}-R50x1-npz")


def test_a_repository_of_a_table_does_without_the_namespace_of_the_defaults(plan):
    text = '[defaults]\nnamespace = "me"\n[[release]]\nvariant = "BiT-digits"\nrepo_id = "ours/x"\n'
    (each,) = plan(text, push=True)
    assert each.publish == PublishOptions(repo_id="ours/x")


def test_what_is_excluded_is_left_out(plan):
    planned = plan('[[release]]\nvariant = "BiT-*"\nexclude = ["BiT-*-R152x*", "BiT-digits"]\n')
    names = {each.name for each in planned}
    assert names == {v.name for v in find("BiT-*") if "R152" not in v.name and v.name != "BiT-digits"}


def test_a_checkpoint_has_a_folder_of_its_own(plan):
    text = """
        [defaults]
        output = "models"
        [[release]]
        checkpoint = "hf://me/mine"
        variant = "BiT-M-R50x1"
        [[release]]
        checkpoint = "my.npz"
        output = "elsewhere/mine"
        repo_id = "me/mine"
    """
    first, second = plan(text, push=True)
    assert first.request.place("") == Path("models/BiT-M-R50x1")
    assert first.request.variant is not None
    assert second.request.place("") == Path("elsewhere/mine")
    assert (second.request.variant, second.request.checkpoint, second.name) == (None, "my.npz", "my.npz")


def test_a_collection_is_the_hubs(plan):
    text = '[defaults]\ncollection = "BiT"\nnamespace = "me"\n[[release]]\nvariant = "BiT-digits"\n'
    assert [each.collection for each in plan(text, push=True)] == ["BiT"]
    assert [each.collection for each in plan(text)] == [None]
    for own in ("", 'collection = "other"'):
        assert [each.collection for each in plan(text + own, push=True, hub=Path("hub"))] == [None]


def test_keys_are_the_words_of_the_commands():
    words = {
        command: {option.lstrip("-").replace("-", "_") for each in command.params for option in each.opts}
        for command in (convert, verify)
    }
    assert set(KEYS[RELEASES]) - ONLY_IN_PLANS <= words[convert]
    assert set(KEYS[AUDITS]) - ONLY_IN_PLANS <= words[verify]
    options = {WORDS.get(f.name, f.name) for kind in (ConvertOptions, PublishOptions) for f in fields(kind)}
    assert options - {"inputs"} <= set(KEYS[RELEASES])
    assert {WORDS.get(f.name, f.name) for f in fields(AuditOptions)} <= set(KEYS[AUDITS])


# ------------------------------------------------------------------------------------------------------------- errors

ERRORS = {
    "an unknown table": ("[release]\n[[releases]]\n", 2, "releases: no such key. Did you mean release?"),
    "an unknown key": (
        '[[release]]\nvariant = "BiT-digits"\nlayuot = "timm"',
        3,
        "layuot: no such key. Did you mean la",
    ),
    "a hyphen": ('[[release]]\nmax-shard-size = "5GB"', 2, "max-shard-size: no such key. Did you mean max_shard_size?"),
    "an unknown default": ('[defaults]\nx = 1\n[[release]]\nvariant = "BiT-digits"', 2, "x: no such key. Choose from"),
    "one for all": ('[defaults]\nvariant = "BiT-digits"\n[[release]]', 2, "variant: no such key."),
    "an unknown value": (
        '[[release]]\nvariant = "BiT-digits"\n\nlayout = "tim"',
        4,
        "layout 'tim' is not known. Choose",
    ),
    "a value of the defaults": ('[defaults]\ndtype = "x"\n[[release]]\nvariant = "BiT-digits"', 2, "dtype 'x' is not"),
    "a number for a text": ("[[release]]\nvariant = 1", 2, "variant: 1 is no text. Write it in quotes."),
    "a text for a flag": ('[[release]]\nvariant = "BiT-digits"\nforce = "yes"', 3, "force: 'yes' is neither true nor"),
    "a flag for a number": ('[[release]]\nvariant = "BiT-digits"\npatience = true', 3, "patience: True is no number."),
    "no size": (
        '[[release]]\nvariant = "BiT-digits"\nmax_shard_size = "5 apples"',
        3,
        "max_shard_size: '5 apples' is no",
    ),
    "no number of seconds": ('[[release]]\nvariant = "BiT-digits"\npatience = -1', 3, "patience -1 is no number of"),
    "an empty list": ("[[release]]\nvariant = []", 2, "variant: [] is no text."),
    "a table for a text": ("[[release]]\n[release.output]\nx = 1", 2, "output: {'x': 1} is no text."),
    "a single table": ('[release]\nvariant = "BiT-digits"', 1, "release: is no array of tables. Write [[release]]."),
    "defaults that are none": ("defaults = 1", 1, "defaults: is no table. Write [defaults]."),
    "nothing": ("", 1, "release: the plan has none."),
    "no variant": ('[[release]]\n\nlayout = "timm"', 1, "variant: is missing."),
    "an unknown variant": (
        '[[release]]\nlayout = "timm"\nvariant = "BiT-M-R50x2"',
        3,
        "variant: no released checkpoint",
    ),
    "nothing left": (
        '[[release]]\nvariant = "BiT-digits"\nexclude = "BiT-*"',
        3,
        "exclude: leaves none of 1 variants.",
    ),
    "several of a checkpoint": ('[[release]]\nvariant = "BiT-*"\ncheckpoint = "x.npz"', 2, "variant: BiT-* names"),
    "a list of a checkpoint": ('[[release]]\nvariant = ["BiT-digits", "x"]\ncheckpoint = "x.npz"', 2, "variant: names"),
    "no output": ('[[release]]\ncheckpoint = "x.npz"', 1, "output: is missing."),
    "options that contradict": (
        '[defaults]\nexact = "logits"\n[[release]]\nvariant = "BiT-digits"\n\nlayout = "npz"',
        6,
        "layout: exact logits is for libraries",
    ),
    "defaults that contradict": (
        '[defaults]\nexact = "logits"\nlayout = "npz"\n[[release]]\nvariant = "BiT-digits"',
        2,
        "exact logits is for libraries",
    ),
    "a pull request with a tag": (
        '[[release]]\nvariant = "BiT-digits"\ncreate_pr = true\ntag = "v1"',
        3,
        "create_pr proposes a change to main: it goes with neither revision nor tag.",
    ),
    "a private folder hub": (
        '[[release]]\nvariant = "BiT-digits"\nprivate = true\nhub = "hub"',
        3,
        "private: a folder hub has no private. Leave out private or hub.",
    ),
    "a collection of a folder": (
        '[[release]]\nvariant = "BiT-digits"\nhub = "hub"\ncollection = "BiT"',
        4,
        "collection: a folder hub has no collection. Leave out collection or hub.",
    ),
    "published unverified": (
        '[[release]]\nvariant = "BiT-digits"\nverify = false\npush = true',
        3,
        "verify: only what was verified is published.",
    ),
    "a key that is missing": (
        '[[release]]\nvariant = "BiT-digits"\nsign_key = "no.pem"',
        3,
        "sign_key: no.pem: no such file.",
    ),
    "photographs that are missing": (
        '[[release]]\nvariant = "BiT-digits"\nimages = "nowhere"',
        3,
        "images: nowhere: no such folder.",
    ),
    "two namespaces": (
        '[[release]]\nvariant = "BiT-digits"\nnamespace = "me"\nrepo_id = "me/x"',
        3,
        "namespace: repo_id has one already.",
    ),
    "an unknown field": (
        '[[release]]\nvariant = "BiT-digits"\nrepo_id = "me/{nmae}"',
        3,
        "repo_id: {nmae} cannot be filled. Did you mean name?",
    ),
    "a field of a field": (
        '[[release]]\nvariant = "BiT-digits"\nrepo_id = "me/{name.__class__}"',
        3,
        "repo_id: {name.__class__} cannot be filled.",
    ),
    "half a field": (
        '[[release]]\nvariant = "BiT-digits"\ntag = "{name"',
        3,
        "tag: '{name': expected '}' before end of string.",
    ),
    "a namespace that is not given": (
        '[[release]]\nvariant = "BiT-digits"\nrepo_id = "{namespace}/x"',
        3,
        "repo_id: {namespace} cannot be filled: no namespace is given.",
    ),
    "a name that is not known": (
        '[[release]]\ncheckpoint = "x.npz"\noutput = "{name}"',
        3,
        "output: {name} cannot be filled: it is a variant's",
    ),
    "a checkpoint to publish without a name": (
        '[[release]]\ncheckpoint = "x.npz"\noutput = "x"\npush = true',
        1,
        "repo_id: is missing.",
    ),
    "two folders": (
        '[[release]]\nvariant = "BiT-digits"\n\n[[release]]\nvariant = "BiT-d*"\nlayout = "timm"',
        4,
        "output: BiT-digits and BiT-digits (line 1) would both write",
    ),
    "a folder in another": (
        '[[release]]\nvariant = "BiT-digits"\noutput = "a/b"\n[[release]]\ncheckpoint = "x.npz"\noutput = "a"',
        6,
        "output: x.npz and BiT-digits (line 1) would both write",
    ),
    "one repository of two": (
        '[[release]]\nvariant = "BiT-S-R50*"\nrepo_id = "me/x"\npush = true',
        3,
        "repo_id: BiT-S-R50x3 and BiT-S-R50x1 (line 1) would both publish to me/x, main.",
    ),
    "no TOML": ("[[release]]\nvariant = \n", 2, "no TOML: Invalid value."),
    "an end within": ('[[release]]\nvariant = """\n\n', 4, "no TOML:"),
    "a wrong audit": ('[[release]]\nvariant = "BiT-digits"\n[[audit]]\ntraget = "x"', 4, "traget: no such key."),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_line_and_key(plan, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    text, line, message = ERRORS[case]
    assert refused(plan, text).startswith(f"plan.toml:{line}: {message}")


def test_one_option_of_the_command_line_can_contradict(plan):
    text = '[defaults]\nnamespace = "me"\n\n[[release]]\nvariant = "BiT-digits"\nprivate = true\n'
    assert refused(plan, text, hub=Path("hub")) == (
        "plan.toml:6: private: a folder hub has no private. Leave out private or hub."
    )


def test_two_repositories_that_differ_in_case_are_one_on_the_hub(plan):
    text = '[defaults]\npush = true\n[[release]]\nvariant = "BiT-digits"\nrepo_id = "me/x"\n'
    text += '[[release]]\nvariant = "BiT-M-R50x1"\nrepo_id = "Me/X"\n'
    assert "plan.toml:8: repo_id: BiT-M-R50x1 and BiT-digits (line 3)" in refused(plan, text)
    assert len(plan(text + 'revision = "other"\n')) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = '\xff'", "the plan is damaged"),
        (b"#" * (1 << 20) + b"##", "larger than 1024 KB"),
        (b"x = " + b"[" * 100_000, "the plan is damaged"),
        (b"\xef\xbb\xbf[[release]]", ":1: no TOML"),
        (b"x = " + b"9" * 10_000, "the plan"),
    ],
)
def test_hostile_plans_end_in_one_error(tmp_path, content, message):
    path = tmp_path / "plan.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(message)):
        read_plan(path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing", "."):
        with pytest.raises(UsageError, match=name if name != "." else "cannot be read"):
            read_plan(tmp_path / name)


def test_tables_without_end_are_refused_early(plan, monkeypatch):
    monkeypatch.setattr("converters.release.plan.MAX_JOBS", 3)
    text = "".join(f'[[release]]\nvariant = "BiT-digits"\noutput = "{number}"\n' for number in range(5))
    assert refused(plan, text).startswith("plan.toml:10: release: more than 3 models.")


# --------------------------------------------------------------------------------------------------- the command line

EXAMPLE = Path(__file__).parents[2] / "examples" / "bit.toml"
TOKEN = "hf_" + "PlanPlanPlan"


@pytest.fixture
def apart(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_example_says_what_it_would_do(apart):
    result = run("--plan", EXAMPLE, "--push", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    count = sum(len(find(glob)) for glob in ("BiT-S-*", "BiT-M-*", "distill/*", "BiT-M-*-ILSVRC2012"))
    count += sum("R152x4" not in variant.name for variant in find("vtab/*"))
    assert f"models        {count}" in lines
    assert "publish me/BiT-M-R50x1-ILSVRC2012-timm on the Hub; collection BiT, verified" in result.stdout
    assert listed(apart) == []


def test_totals_are_of_a_glob_too_and_in_json(apart):
    document = json.loads(run("--variant", "BiT-M-*-ILSVRC2012", "--dry-run", "--json").stdout)
    assert document["estimate"]["models"] == len(document["results"]) == 6
    assert document["estimate"]["fetch"] == sum(variant.bytes for variant in find("BiT-M-*-ILSVRC2012"))
    assert document["estimate"]["requests"] == 0
    assert listed(apart) == []


@pytest.mark.slow
def test_shards_are_the_list(apart):
    whole = json.loads(run("--plan", EXAMPLE, "--dry-run", "--json").stdout)
    parts = [json.loads(run("--plan", EXAMPLE, "--dry-run", "--json", "--shard", f"{i}/3").stdout) for i in (1, 2, 3)]
    names = [entry["plan"]["write"] for part in parts for entry in part["results"]]
    assert sorted(names) == sorted(entry["plan"]["write"] for entry in whole["results"])
    fetched = [part["estimate"]["send"] + part["estimate"]["disk"] for part in parts]
    assert max(fetched) - min(fetched) < 0.1 * max(fetched)


def test_a_part_of_nothing_is_nothing(apart):
    assert run("BiT-digits", "--shard", "2/2").stdout == "bit-convert: no models to do\n"
    assert json.loads(run("BiT-digits", "--shard", "2/2", "--json").stdout)["results"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan", EXAMPLE, "--variant", "BiT-digits"], "--variant is said in the tables of a plan."),
        (["BiT-digits", "--plan", EXAMPLE], "--variant is said in the tables of a plan."),
        (["--plan", EXAMPLE, "--repo-id", "me/x"], "--repo-id is said in the tables of a plan."),
        (["--plan", EXAMPLE, "--push", "--no-verify"], "verify: only what was verified is published."),
        (["--plan", "missing.toml"], "'missing.toml' does not exist."),
        (["BiT-digits", "--shard", "0/2"], "--shard 0/2: is no part. Write I/N"),
        (["BiT-digits", "--collection", "BiT"], "--collection is for publishing. Add --push."),
        (["BiT-digits", "--collection", "BiT", "--push", "--hub", "hub"], "a folder hub has no --collection."),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_does_not_go_together_is_said(apart, words, message):
    assert message in refused_by_command(2, *words)


def test_too_little_disk_is_said_and_the_run_goes_on(apart, monkeypatch):
    free = shutil.disk_usage(".")._replace(free=10**6)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    result = run("--variant", "BiT-digits", "--output", "models", "--no-verify")
    assert result.exit_code == 0, result.output
    assert "too little disk: 8.1 MB are needed, 1.0 MB are free. Make room, or use --discard." in result.stderr
    assert "too little disk" not in run("BiT-digits", "--output", "models", "--no-verify", "--quiet", "--force").stderr


@pytest.mark.slow
def test_a_plan_is_released(apart):
    """In two layouts, to a Hub of its own, gathered in a collection; and again, which changes nothing."""
    (apart / "plan.toml").write_text(
        f"""
        [defaults]
        namespace = "me"
        output = "{apart}/models/{{layout}}"
        repo_id = "{{namespace}}/{{name}}-{{layout}}"
        collection = "BiT"
        [[release]]
        variant = "BiT-digits"
        [[release]]
        variant = "BiT-digits"
        layout = "npz"
        tag = "v1"
        """
    )
    command = ("convert", "--plan", apart / "plan.toml", "--push", "--json", "--quiet")
    with HubServer({TOKEN: User("me")}) as hub:
        first, again = (
            json.loads(stdout) for _, stdout, _ in elsewhere(command, command, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
        )
        (collection,) = hub.collections.values()
        assert {name: [*repository.tags] for name, repository in hub.repositories.items()} == {
            "me/BiT-digits-transformers": [],
            "me/BiT-digits-npz": ["v1"],
        }
    assert [entry["state"] for entry in first["results"]] == ["published", "published"]
    assert [entry["state"] for entry in again["results"]] == ["unchanged", "unchanged"]
    assert sorted(name for _, name in collection.items) == ["me/BiT-digits-npz", "me/BiT-digits-transformers"]
    assert [len(document["collections"][0]["added"]) for document in (first, again)] == [2, 0]
    assert (apart / "models" / "npz" / "BiT-digits" / "BiT-digits.npz").is_file()


@pytest.mark.slow
def test_a_collection_that_cannot_be_filled_is_an_error_after_all_models(apart):
    with HubServer({TOKEN: User("me")}) as hub:
        hub.fail("create_collection", 403, times=None)
        words = ("convert", "BiT-digits", "--output", apart, "--push", "--collection", "BiT", "--json", "--quiet")
        ((status, stdout, stderr),) = elsewhere(words, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
    document = json.loads(stdout)
    assert (status, document["exit_status"]) == (4, 4)
    assert [entry["state"] for entry in document["results"]] == ["published"]
    assert "the collection BiT lacks 1 of 1 models: 403" in document["collections"][0]["error"]
    assert stderr.startswith("bit-convert: the collection BiT lacks 1 of 1 models: 403 Forbidden")


# --------------------------------------------------------------------------------------------------------------- laws

TEXT = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=8)
NAME = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True)
VALUES = {
    "layout": st.sampled_from(LAYOUTS),
    "dtype": st.sampled_from(DTYPES),
    "exact": st.sampled_from(EXACT),
    "pool_padding": st.sampled_from(POOL_PADDINGS),
    "max_shard_size": st.integers(1, 10**12),
    "verify": st.booleans(),
    "force": st.booleans(),
    "offline": st.booleans(),
    "namespace": NAME,
    "private": st.booleans(),
    "create_pr": st.booleans(),
    "revision": NAME,
    "tag": NAME,
    "hub": NAME.map(Path),
    "patience": st.integers(0, 10**6),
}
OPTIONS = st.fixed_dictionaries({}, optional=VALUES)


def written(value: object) -> str:
    """A value in TOML; of JSON's, texts, numbers and truth values are TOML's."""
    return json.dumps(str(value) if isinstance(value, Path) else value)


def options_of(values: dict[str, object]) -> tuple[ConvertOptions, PublishOptions] | None:
    """What the values mean, without a plan; None for those that contradict each other."""
    kinds = (ConvertOptions, PublishOptions)
    try:
        how, publish = (
            kind(**{key: value for key, value in values.items() if key in {f.name for f in fields(kind)}})
            for kind in kinds
        )
    except UsageError:
        return None
    return how, publish


@given(defaults=OPTIONS, own=OPTIONS, push=st.booleans())
def test_a_plan_means_what_its_options_mean(tmp_path_factory, defaults, own, push):
    """Law: jobs(write(options)) has these options, or both are refused."""
    path = tmp_path_factory.getbasetemp() / "law.toml"
    lines = ["[defaults]", *(f"{key} = {written(value)}" for key, value in defaults.items()), "[[release]]"]
    lines += ['variant = "BiT-digits"', *(f"{key} = {written(value)}" for key, value in own.items())]
    path.write_text("\n".join(lines), encoding="utf-8")
    meant = options_of(defaults | own)
    if meant is None or (push and not meant[0].verify):
        with pytest.raises(UsageError, match=rf"^{re.escape(str(path))}:\d+: "):
            read_plan(path, {"push": push})
        return
    (each,) = read_plan(path, {"push": push})
    assert each.request.options == meant[0]
    assert each.publish == (meant[1] if push else None)


SPACE = st.sampled_from(["", "", "# [x] = 1", "   # '''", "\t"])
LONG = st.sampled_from(['"""\n[[x]]\ny = 1\n"""', "'''\n'''", "[\n1, # ]\n2,\n]", '"# \\" = ["', "{ a.b = 1 }", "1"])
KEY = st.sampled_from(["a", '"b c"', "'d.e'", "f", '"[["', "'#'"])


@given(tables=st.lists(st.tuples(st.booleans(), SPACE, st.dictionaries(KEY, st.tuples(LONG, SPACE))), max_size=6))
def test_every_key_has_its_line(tmp_path_factory, tables):
    """Law: a document that is written line by line has each key where it was written."""
    lines: list[str] = []
    wanted = {}
    for number, (is_apart, space, assignments) in enumerate(tables):
        lines += [""] * is_apart + [f" [[ t ]] {space}" if space.strip() else "[[t]]"]
        wanted["t", number] = len(lines)
        for key, (value, after) in assignments.items():
            wanted["t", number, key.strip("\"'")] = len(lines) + 1
            lines += f"{key} = {value} {after}".split("\n")
            lines += [after]
    path = tmp_path_factory.getbasetemp() / "lines.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    document = read(path)
    assert {place: document.line(*place) for place in wanted} == wanted


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_is_in_a_file_it_ends_in_jobs_or_one_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "junk.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        read_plan(path)
