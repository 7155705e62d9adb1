"""Fuzzing of every reader of foreign bytes: mutations that keep to a format's structure, and some that do not.

    python -m tests.fuzz --seconds 60 --reader npz

``mutations.py`` changes bytes, JSON, zip, tar, pickles and records; ``readers.py`` says for each reader what a good
input is, how it is changed and how it is read; ``__main__.py`` runs them and holds each execution to the promise:
nothing but our errors, a second, 256 MB above the input, and no file but those that were given.
"""
