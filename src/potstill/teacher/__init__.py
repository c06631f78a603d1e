"""Stage 2: the teacher, trained by transfer learning into `2_teacher/`.

`heads` and `probe` train a head on stored features, `finetune` the backbone, `propagation` spreads labels to unlabeled
photos. Imports the foundation (`FOUNDATION` in tests/unit/test_layers.py) and `context`, and no other stage.
"""
