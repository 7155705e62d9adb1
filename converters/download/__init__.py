"""From an address to a file on this machine.

In: a path, a URL, ``hf://``, ``kaggle://``, or a variant. Out: a local path. ``locations.py`` tells the kinds of
address apart (``addresses.py``: mirrors); ``http.py`` downloads a file, whole or not at all, to where ``cache.py``
says; ``snapshots.py`` asks the Hub, through ``hub_client.py``; ``kaggle.py`` asks Kaggle. ``retry.py`` is how long a
server is asked, ``answers.py`` how its answers are read.
"""
