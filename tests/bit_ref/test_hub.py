"""The Hub, through huggingface_hub's real client against a server on this machine; each step is a process of its own,
since huggingface_hub reads its settings when it is imported."""

import json
import os

import pytest

from bit_ref import BitConfig, BitForImageClassification, BitImageProcessor
from tests import processes
from tests.bit_ref.support import SMALL
from tests.hub_server import HubServer, User

TOKEN = "hf_" + "BitRefBitRefBitRef"
FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.fixture
def hub():
    with HubServer({TOKEN: User("me")}) as server:
        yield server


@pytest.fixture
def python(hub, tmp_path):
    """Runs a program on an empty home, with the server as its Hub; gives what it prints."""
    home = tmp_path / "home"

    def run(program: str, **environment: str) -> str:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        program = f"import bit_ref\nSMALL = {SMALL!r}\n{program}"
        done = processes.python(program, environment=environment)
        assert TOKEN not in done.stdout + done.stderr
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def published(hub, tmp_path, revision="main", *, name="me/bit", subfolder="", **options) -> None:
    """Puts a saved model into a repository of the server."""
    BitForImageClassification(BitConfig(**SMALL, note=revision)).save_pretrained(tmp_path / revision, **options)
    BitImageProcessor(note=revision).save_pretrained(tmp_path / revision)
    files = {f"{subfolder}{file.name}": file.read_bytes() for file in (tmp_path / revision).iterdir()}
    hub.add(name, files=files)


@pytest.mark.slow
def test_push_makes_the_repository_and_commits_the_files(hub, python):
    program = f"""
        model = bit_ref.BitForImageClassification(bit_ref.BitConfig(**SMALL))
        print(model.push_to_hub("me/bit", token={TOKEN!r}, private=True, commit_message="Here", create_pr=False).oid)
        bit_ref.BitImageProcessor().push_to_hub("me/bit", token={TOKEN!r})
    """.replace("\n        ", "\n")
    oid = python(program)
    repository = hub.repositories["me/bit"]
    assert repository.private
    assert [commit.title for commit in repository.history()] == ["Upload BitImageProcessor", "Here"]
    assert repository.commits[oid].tree.keys() == FILES - {"preprocessor_config.json"} | {".gitattributes"}
    assert repository.tree().keys() == FILES | {".gitattributes"}
    assert json.loads(repository.tree()["config.json"].content)["architectures"] == ["BitForImageClassification"]
    assert python(f'print(bit_ref.BitModel.from_pretrained("me/bit", token={TOKEN!r}).num_parameters())') != ""


def test_save_can_push_to_a_branch_with_the_token_of_the_environment(hub, python, tmp_path):
    python(
        f"bit_ref.BitConfig(**SMALL).save_pretrained({str(tmp_path / 'bit')!r}, push_to_hub=True, revision='trial')",
        HF_TOKEN=TOKEN,
    )
    repository = hub.repositories["me/bit"]
    assert "config.json" in repository.tree("trial")
    assert "config.json" not in repository.tree("main")


@pytest.mark.slow
def test_what_is_saved_is_what_is_published(hub, python, tmp_path):
    """Its weights may be others than the model's own."""
    program = f"""
model = bit_ref.BitModel(bit_ref.BitConfig(**SMALL))
weights = {{name: value * 2 for name, value in model.state_dict().items()}}
options = {{"state_dict": weights, "max_shard_size": 100_000, "variant": "twice"}}
model.save_pretrained({str(tmp_path / "bit")!r}, push_to_hub=True, **options)
"""
    python(program, HF_TOKEN=TOKEN)
    saved = {file.name: file.read_bytes() for file in (tmp_path / "bit").iterdir()}
    pushed = {name: entry.content for name, entry in hub.repositories["me/bit"].tree().items()}
    assert pushed.keys() - {".gitattributes"} == saved.keys() > {"model.safetensors.index.twice.json"}
    assert all(pushed[name] == content for name, content in saved.items())


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"max_shard_size": 100_000}], ids=["whole", "shards"])
def test_loads_from_the_hub_and_then_from_its_cache(options, hub, python, tmp_path):
    published(hub, tmp_path, **options)
    cache = str(tmp_path / "cache")
    program = f"""
print(bit_ref.BitForImageClassification.from_pretrained("me/bit", cache_dir={cache!r}).config.note)
print(bit_ref.BitImageProcessor.from_pretrained("me/bit", cache_dir={cache!r}).note)
"""
    assert python(program).split() == ["main", "main"]
    asked = len(hub.requests)
    offline = program.replace("cache_dir", "local_files_only=True, cache_dir")
    assert python(offline).split() == ["main", "main"]
    assert python(program, HF_HUB_OFFLINE="1").split() == ["main", "main"]
    assert len(hub.requests) == asked


def test_cache_without_the_file_is_said(hub, python):
    hub.add("me/bit")
    program = """
try:
    bit_ref.BitConfig.from_pretrained("me/bit", local_files_only=True)
except OSError as error:
    print(error)
"""
    assert "me/bit has no config.json in the cache" in python(program)
    assert hub.requests == []


@pytest.mark.slow
def test_revision_and_subfolder(hub, python, tmp_path):
    published(hub, tmp_path, "old", subfolder="models/")
    old = hub.repositories["me/bit"].refs["main"]
    tree = hub.repositories["me/bit"].tree()
    hub.repositories["me/bit"].commit("main", {".gitattributes": tree[".gitattributes"]}, "emptied", "me")
    assert (
        python(f'print(bit_ref.BitModel.from_pretrained("me/bit", revision={old!r}, subfolder="models").config.note)')
        == "old"
    )


@pytest.mark.slow
def test_all_files_are_of_one_commit(hub, python, tmp_path):
    """The branch moves on between config.json and the weights."""
    published(hub, tmp_path)
    repository = hub.repositories["me/bit"]

    def move_on(request) -> None:
        if request.kind == "resolve" and request.path.endswith("model.safetensors"):
            repository.commit("main", {".gitattributes": repository.tree()[".gitattributes"]}, "emptied", "me")

    hub.on_request = move_on
    assert python('print(bit_ref.BitModel.from_pretrained("me/bit").config.note)') == "main"
    assert "model.safetensors" not in repository.tree()


@pytest.mark.slow
def test_all_shards_are_of_one_commit(hub, python, tmp_path):
    """The branch moves on between the index and the first of them, for a model whose config is given."""
    published(hub, tmp_path, max_shard_size=100_000)
    repository = hub.repositories["me/bit"]

    def move_on(request) -> None:
        if request.kind == "resolve" and "model-00001-of" in request.path:
            repository.commit("main", {".gitattributes": repository.tree()[".gitattributes"]}, "emptied", "me")

    hub.on_request = move_on
    program = 'bit_ref.BitForImageClassification.from_pretrained("me/bit", config=bit_ref.BitConfig(**SMALL))'
    assert python(f"print({program}.num_labels)") == "5"
    assert repository.tree().keys() == {".gitattributes"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("me/nothing", "me/nothing"), ("me/empty", "me/empty has no config.json"), ("a/b/c", "a/b/c is neither a folder")],
)
def test_what_is_not_on_the_hub_is_an_os_error(name, message, hub, python):
    hub.add("me/empty")
    program = f"""
try:
    bit_ref.BitConfig.from_pretrained({name!r}, token={TOKEN!r})
except OSError as error:
    print(error)
"""
    assert message in python(program)
