"""What a person sees of a run: the report page, provenance, the live page, comparisons and the terminal."""
