"""Stage 3: the teacher's logits and features for every stored view, in `3_soft_labels/`.

Imports what inference stands on, and no other stage. `data.soft_labels` reads what is written here.
"""
