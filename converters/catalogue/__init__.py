"""The catalogue of what Google released: variants, with their files, labels and preprocessing.

In: a name or a glob. Out: ``Variant`` objects. The facts are lines of ``released.csv``, read by ``released.py``,
which also prints them; ``variants.py`` makes objects of them.
Names of classes lie in ``labels/``, read by ``labels.py``. ``digits/`` is the small checkpoint that the package ships.
"""
