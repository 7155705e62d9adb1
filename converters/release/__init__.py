"""Releases: many checkpoints, each converted, verified and published, unattended, on one machine or many.

    jobs → ``engine.Engine`` → workers (this process, processes of this machine, a cluster) → ``release_one`` → Results

In go jobs, of a list of variants or of a plan in TOML (``plan.py``); out come results, one a job.
``job.py`` says what there is to do and what came of it, ``one.py`` does one job, ``engine.py`` decides which job runs
when and how often, and what a failure means for the others. ``workers.py`` is the protocol of those who make attempts:
``pool.py`` with ``worker.py`` on this machine, whose cores runs share (``sharing.py``), ``cluster.py`` on Dask's.
``estimate.py`` says beforehand what a run will take, and what fits; ``events.py`` and ``log.py`` are what happens
meanwhile, ``record.py``, ``rows.py`` and ``page.py`` what is left to read; ``discarding.py`` is what need not stay.
"""
