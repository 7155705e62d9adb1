"""The result of an audit, and the forms in which it is read.

In: figures. Out: ``parity.json`` (``parity.py``), ``parity.html`` (``html.py``) and Markdown (``markdown.py``); of two
reports ``comparison.html`` (``comparison.py``). The verdict is derived from the figures in ``verify/verdict.py``.
"""
