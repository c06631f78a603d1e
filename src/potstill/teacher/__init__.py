"""Stage 2: the teacher, trained by transfer learning into `2_teacher/`.

`heads` and `probe` train a head on stored features, `propagation` spreads labels to unlabeled photos. Imports what
training stands on, and no other stage.
"""
