"""Child processes and cores: how many there are, pools of workers, and children that end with their parent.

Imports only `errors`, so that a child can hand them back.
"""
