"""Mail that is stored in the transaction that causes it, and sent after the commit."""
