"""The result of an audit, and the forms in which it is read.

In: figures. Out: ``parity.json`` (``parity.py``, ``schema.py``), ``parity.html`` (``html.py``) and Markdown
(``markdown.py``). ``verdict.py`` derives the verdict from the figures; ``checking.py`` checks that they agree.
"""
