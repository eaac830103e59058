"""PgQueuer, which distributes jobs by LISTEN, NOTIFY and SKIP LOCKED."""
