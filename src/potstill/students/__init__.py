"""Stage 4: every student, distilled and alone, once per seed, in `4_students/`.

`plan` and `recipe` have what is decided, `job` is one training, `runner` runs several side by side, `worker` is the
process of one, `budget` finds students for a limit. Imports the foundation (`FOUNDATION` in tests/unit/test_layers.py)
and `context`, and no other stage.
"""
