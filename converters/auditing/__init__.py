"""A folder as the target of an audit.

In: a folder and a source. Out: a report. ``audits.py`` runs an audit; ``target.py`` presents the folder and its
readers; ``inspection/`` says what each file and field must be; ``effective_values.py`` asks the library itself;
``report_check.py`` checks a report that is there; ``heldout.py`` classifies the images that a variant ships.
"""
