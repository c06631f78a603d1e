"""Every setting of a run, and where its value comes from.

`schema` has the dataclasses, with the help text under each field; `load` reads recipes and flags and names the nearest
setting on a typo. Imports errors only. A new setting is one documented field in `schema`.
"""
