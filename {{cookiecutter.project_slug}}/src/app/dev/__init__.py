"""Embedded servers for development and tests. Production imports nothing from here."""
