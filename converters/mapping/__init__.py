"""From Google's tensors to stored ones, and back.

In: names, shapes and values in Google's layout. Out: names, shapes and values as a layout stores them.
Another scheme of names is a column of ``names.py``; another order of axes is a form of ``layouts.py``. A network is
described by ``architecture.py``, dtypes by ``dtypes.py``; ``storage.py`` composes them; ``tiles.py`` transposes fast.
"""
