"""The evaluation of a folder and its source on a labelled data set, for ``bit-verify --dataset``.

    classes.py   from a label to the class of the network
    datasets.py  from a folder or a CSV to the list of images and their classes
    images.py    image files, opened with care
    recipes.py   preprocessing: Google's, the folder's own
    workers.py   processes that open and prepare images
    results.py   predictions that are kept, so that an interrupted evaluation goes on
    run.py       all of it, from the data set to an EvaluationReport

What a network takes an image for, and what is counted, is in ``verify.evaluation``.
"""
