"""Stage 7: the page to read, made only from finished folders. Runs no model. `write.write_report` makes it."""
