"""The features of the service, one package each."""
