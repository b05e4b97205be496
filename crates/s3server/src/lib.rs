//! A small, safe S3 server over a directory, for one machine and for tests.
