"""The native JSON API: the same nouns and verbs as the command line."""
