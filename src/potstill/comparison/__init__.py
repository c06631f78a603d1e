"""Stage 5: teacher, students and twins on the test photos, in `5_comparison/`.

The only stage before the export that reads test photos. Imports what inference stands on, and no other stage.
"""
