"""Photos and runs in object storage (S3 and what speaks its language, Google Cloud Storage, Azure), through fsspec.

`addresses` has what `s3://bucket/photos` means, `client` every request to a store, `cache` the local copies, `photos`
and `runs` what is copied when. Imports `errors`, `wording` and `run`. Credentials are found by the fsspec backends, and
never pass through here.
"""
