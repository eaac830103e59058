"""Passages of text, found by what they mean: vectors in PostgreSQL, by pgvector."""
