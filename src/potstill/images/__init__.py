"""Photos: get, check, decode, split and pack them. Nothing in this folder knows a model."""
