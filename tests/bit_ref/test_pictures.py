"""Pictures from paths, URLs and base64 texts, against transformers' load_image; and what is refused."""

import base64
import io

import numpy as np
import PIL.Image
import pytest

import bit_ref
from bit_ref import BitImageProcessor, load_image
from tests.file_server import Fault, FileServer

ORIENTATION = 0x0112


def file(ending: str = "PNG", orientation: int | None = None, mode: str = "RGB") -> bytes:
    """The content of an image file of 40 by 50 pixels."""
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).convert(mode)
    exif, stream = PIL.Image.Exif(), io.BytesIO()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    image.save(stream, ending, exif=exif)
    return stream.getvalue()


def assert_same(ours: PIL.Image.Image, theirs: PIL.Image.Image) -> None:
    assert (ours.mode, ours.size) == (theirs.mode, theirs.size)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("content", [file(), file(mode="L"), file(mode="P"), file("JPEG", 6), file("JPEG", 3)])
def test_every_source_is_read_as_by_transformers(content, tmp_path, monkeypatch):
    from transformers.image_utils import load_image as their_load_image

    (tmp_path / "a.image").write_bytes(content)
    text = base64.b64encode(content).decode()
    with FileServer({"/a.image": content}) as server:
        for source in (
            str(tmp_path / "a.image"),
            text,
            f"data:image/png;base64,{text}",
            server.url("/a.image"),
            PIL.Image.open(io.BytesIO(content)),
        ):
            assert_same(load_image(source), their_load_image(source))
    assert_same(load_image(tmp_path / "a.image"), their_load_image(str(tmp_path / "a.image")))


def test_processor_takes_sources_and_turns_files(tmp_path):
    (tmp_path / "a.jpg").write_bytes(file("JPEG", 6))
    processor = BitImageProcessor(do_resize=False, do_center_crop=False)
    upright = PIL.Image.open(tmp_path / "a.jpg")
    shapes = [
        processor(source)["pixel_values"][0].shape
        for source in (
            str(tmp_path / "a.jpg"),
            base64.b64encode(file("JPEG", 6)).decode(),
            upright,
            load_image(upright),
        )
    ]
    assert shapes == [(3, 50, 40), (3, 50, 40), (3, 40, 50), (3, 50, 40)]
    fetched = processor.fetch_images([str(tmp_path / "a.jpg"), [upright]])
    assert fetched[0].size == (40, 50)
    assert fetched[1][0] is upright


@pytest.mark.parametrize(
    "source", ["nothing.png", "", "data:image/png;base64,AAAA", "x" * 5000, "ftp://host/a.png", "a\0b"]
)
def test_text_that_is_no_source_is_refused(source):
    with pytest.raises(ValueError, match="Incorrect image source") as raised:
        load_image(source)
    assert len(str(raised.value)) < 200


def test_other_things_are_refused(tmp_path):
    with pytest.raises(TypeError, match="int"):
        load_image(3)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(OSError, match=r"a\.png"):
        load_image(tmp_path / "a.png")


DAMAGED = {
    "short": (file()[:-30], "cannot be read: image file is truncated"),
    "huge": (b"P6 60000 60000 255\n", "cannot be read: Image size .* exceeds limit"),
    "header": (b"P6 6k 6 255\n", "cannot be read: invalid literal"),
    "page": (b"<html>", "is no picture in a format that Pillow reads"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_picture_is_an_os_error_that_names_it(kind, tmp_path):
    content, message = DAMAGED[kind]
    (tmp_path / "a.png").write_bytes(content)
    with FileServer({"/a.png": content}) as server:
        url = server.url("/a.png")
        for source in (tmp_path / "a.png", url.replace("://", "://user:secret@")):
            with pytest.raises(OSError, match=rf"/a\.png {message}") as raised:
                load_image(source)
            assert "secret" not in str(raised.value)
            assert isinstance(raised.value, PIL.UnidentifiedImageError) == (kind == "page")
    with pytest.raises(
        ValueError if kind == "page" else OSError, match=r"Incorrect image source|the picture in base64"
    ):
        load_image(base64.b64encode(content).decode())


def test_server_that_has_no_picture_is_named_without_secrets(monkeypatch):
    with FileServer({"/a.png": file(), "/large.png": bytes(3000)}) as server:
        address = server.url("/missing.png").replace("://", "://user:secret@") + "?token=secret"
        with pytest.raises(OSError, match=r"/missing\.png: .*status 404") as raised:
            load_image(address)
        assert "secret" not in str(raised.value)
        monkeypatch.setattr("bit_ref.pictures.LARGEST", 1000)
        with pytest.raises(OSError, match="fetch it by hand"):
            load_image(server.url("/large.png"))
        server.faults += [Fault(no_answer=True)]
        with pytest.raises(OSError, match=r"/a\.png: could not be fetched"):
            load_image(server.url("/a.png"))


@pytest.mark.parametrize("variable", ["BIT_CONVERT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_means_that_nothing_is_fetched(variable, monkeypatch):
    monkeypatch.setenv(variable, "1")
    with FileServer({"/a.png": file()}) as server:
        with pytest.raises(OSError, match=variable):
            load_image(server.url("/a.png"))
        assert not server.requests


def test_processor_as_a_json_file(tmp_path):
    processor = BitImageProcessor(size=42, crop_size=30)
    processor.to_json_file(tmp_path / "any.json")
    assert BitImageProcessor.from_json_file(tmp_path / "any.json").to_dict() == processor.to_dict()
    processor.save_pretrained(tmp_path)
    content, unused = BitImageProcessor.get_image_processor_dict(tmp_path, nothing=1, subfolder="")
    assert (content, unused) == (json_like(processor), {"nothing": 1})
    other, _ = BitImageProcessor.get_image_processor_dict(tmp_path, image_processor_filename="any.json")
    assert other == content
    assert processor.backend == "pil"
    assert (processor.size.shortest_edge, processor.size.height, processor.crop_size.width) == (42, None, 30)
    with pytest.raises(AttributeError):
        processor.size.depth  # noqa: B018
    assert bit_ref.load_image is load_image


def json_like(processor) -> dict:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in processor.to_dict().items()}
