"""Releases: many checkpoints, each converted, verified and published, unattended, on one machine or many.

    jobs → ``engine.Engine`` → workers (this process, processes of this machine, a cluster) → ``release_one`` → Results

``job.py`` says what there is to do and what came of it, ``one.py`` does one job, ``engine.py`` decides which job runs
when, where and how often, and what a failure means for the others. Workers are all that differ between one process,
a pool and a cluster. ``plan.py`` reads jobs from a TOML file, whose keys are in ``plan_keys.py``, ``audit_plan.py`` the
targets of an audit; ``estimate.py`` says what they will take, ``shard.py`` deals them into parts.
"""
