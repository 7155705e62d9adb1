"""``python -m converters``: bit-convert, where its script is not on the path."""

from converters.cli import convert

if __name__ == "__main__":
    convert(prog_name="python -m converters")
