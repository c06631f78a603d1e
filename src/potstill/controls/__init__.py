"""Controls of a finished run that has photos without labels: what else could have made the student better.

A labeled twin is trained on the true labels of all photos, a self-taught student on the twin's soft labels. Imports
the foundation, `context`, `images`, and the stages whose work it repeats: `soft_labels` and `students`.
"""
