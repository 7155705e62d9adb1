"""The content of a converted folder.

In: a source, a plan and a report. Out: a finished folder. ``plan.py`` is what is to be made; ``config.py`` writes
config.json and preprocessor_config.json; ``card.py`` the model card, with the lines of Python of ``snippet.py`` and the
accuracy, use and data of ``card_facts.py``; ``provenance.py`` says where all of it comes from; ``signature.py`` signs
it; ``stored_weights.py`` reads weights back.
"""
