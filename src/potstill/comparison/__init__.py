"""Stage 5: teacher, students and twins on the test photos, in `5_comparison/`.

The first stage in which a model sees test photos. Imports the foundation and `context`, and no other stage.
"""
