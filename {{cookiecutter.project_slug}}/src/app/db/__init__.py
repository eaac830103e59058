"""PostgreSQL: engine, sessions, migrations and schema version."""
