"""Publishing a verified folder.

In: a folder and its passed report. Out: one commit on the Hub (``upload.py``) or in a folder (``local_folder.py``).
``guard.py`` lets only verified files through; requests go through ``converters.download.hub_client``.
"""
