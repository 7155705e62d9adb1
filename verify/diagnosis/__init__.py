"""The diagnosis of a port that failed: which kind of fault, and where.

In: what a folder stores or computes, and the oracle. Out: faults (``verify/faults.py``). ``changes.py`` names those of
stored values, ``arithmetic.py`` and ``computed.py`` those of what is computed, ``head.py`` those of the head;
``right_steps.py`` has candidates share what they have in common.
"""
