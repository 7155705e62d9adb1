"""What a converted folder holds, and how it gets its place.

In: a source, a plan and a report. Out: a finished folder. ``plan.py`` is what is to be made; ``config.py`` writes
config.json and preprocessor_config.json; ``card.py`` the model card; ``stored_weights.py`` reads weights back;
``placing.py`` puts a folder in its place, whole or not at all.
"""
