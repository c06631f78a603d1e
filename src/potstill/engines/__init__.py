"""Where long work runs: in processes of this machine, or on the nodes of a Ray cluster.

Work is a module with `work(job)` and a JSON file that says what to do, both in files that every node sees, so that an
engine passes on nothing but their names. Every job may be interrupted at any time and begun again elsewhere.

Imports `errors`, `config`, `processes` and `run`.
"""
