"""Language models: one small interface, one file a provider."""
