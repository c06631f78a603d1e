"""One module per format to deploy. A new format is one module and one entry in `registry`."""
