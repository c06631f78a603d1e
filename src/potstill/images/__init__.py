"""Stage 1: photos are read, checked, split and packed into `1_images/`.

`folder` reads the layout, `decode` opens files, `duplicates` and `copies` find copies. Imports `config`, `data`,
`monitoring`, `processes` and `run`; no model and no torch.
"""
