"""Stage 1: photos are read, checked, split and packed into `1_images/`.

`folder` lists the files, `decode` opens them, `statistics`, `duplicates` and `copies` check them; `pack`, `selection`
and `tables` are the steps of the stage. Imports `errors`, `config`, `context`, `data`, `monitoring`, `processes` and
`run`; no model and no torch.
"""
