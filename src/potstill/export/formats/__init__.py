"""One module per format to deploy. A new format is one module with a `FORMAT` and one line in `registry`."""
