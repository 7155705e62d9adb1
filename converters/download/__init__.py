"""From an address to a file on this machine.

In: a path, a URL, ``hf://``, ``kaggle://``, or a variant. Out: a local path. ``locations.py`` tells the kinds of
address apart; ``http.py`` downloads a file, whole or not at all; ``cache.py`` says where it is stored; ``kaggle.py``
asks Kaggle.
"""
