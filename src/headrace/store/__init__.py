"""The only SQL and the only object storage: state in SQLite or PostgreSQL, files of versions as blobs."""
