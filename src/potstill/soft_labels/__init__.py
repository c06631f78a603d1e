"""Stage 3: the teacher's logits and features for every stored view, in `3_soft_labels/`.

`data.soft_labels` reads what is written here. Imports the foundation (`FOUNDATION` in tests/unit/test_layers.py) and
`context`, and no other stage.
"""
