"""Passages of text with embeddings, and vector search with pgvector."""
