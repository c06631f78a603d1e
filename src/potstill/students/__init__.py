"""Stage 4: every student, distilled and alone, once per seed, in `4_students/`.

`job` is one training, `runner` runs several side by side, `worker` is the process of one, `budget` finds students for
a limit. Imports what training stands on, and no other stage.
"""
